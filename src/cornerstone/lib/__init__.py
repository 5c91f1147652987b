"""Mechanisms without a word of the product, each written once."""
