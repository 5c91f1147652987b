"""Foundation in the live ISO: discover, validate, address, image."""
