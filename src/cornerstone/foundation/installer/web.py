"""HTTP and HTTPS as the live environment speaks them: no proxies, no other schemes, certificates checked."""

from __future__ import annotations

import urllib.request


def opener() -> urllib.request.OpenerDirector:
    """Its open() raises urllib.error.HTTPError for every answer but a 2xx, so for a redirect: none is followed."""
    found = urllib.request.OpenerDirector()
    for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler,
                    urllib.request.HTTPErrorProcessor):
        found.add_handler(handler())
    return found
