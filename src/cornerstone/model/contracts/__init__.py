"""Every file and message that passes between rooms, and the numbers that both sides must know."""
