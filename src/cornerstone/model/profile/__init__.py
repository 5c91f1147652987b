"""A profile: one AOS release paired with one AHV release, and what is added to them."""
