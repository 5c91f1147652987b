"""The test bench: QEMU machines that boot what the factory made."""
