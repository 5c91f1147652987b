"""Sites and boot settings, put into a finished ISO or onto a written stick without breaking its signature."""
