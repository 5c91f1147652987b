"""What is put into a finished ISO, or onto a written stick, without breaking its signature."""
