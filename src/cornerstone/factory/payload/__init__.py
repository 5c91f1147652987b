"""What a profile's payload consists of: roots, the CVM's disk, boot files, and the plan of their layers."""
