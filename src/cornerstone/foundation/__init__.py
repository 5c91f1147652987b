"""The live environment of the ISO: discover, validate, address, image. Standard library only."""
