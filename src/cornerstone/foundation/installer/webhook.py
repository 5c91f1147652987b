"""The site's webhook: a listener that POSTs a node's reports and holds nobody up.

Events become reports (model/contracts/report.py): `started` at once, then the latest progress, then one final report,
which is tried again until it is delivered or its time is over. No secret of the site is in a report, whatever an
event says.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from cornerstone.foundation.installer.web import opener
from cornerstone.lib.event import Event
from cornerstone.model.contracts.report import FAILED, PROGRESS, SCHEMA_VERSION, STARTED, SUCCEEDED, Report
from cornerstone.model.site.file import REDACTED

POST_SECONDS = 10
RETRY_SECONDS = 2.0
# how long the end waits for its report to be delivered
FINAL_SECONDS = 30.0
LONGEST = 2000


class Webhook:
    """Call it with each event. close() at the end waits for the final report, within a bound.

    url: where to; who: serial, hostname, profile and identity, as in Report; secrets: what has to be in no report;
    last_step: the step whose event `done` means that the node is installed. Events `failed` end the run as failed;
    their data has code and hint.
    """

    def __init__(self, url: str, who: dict[str, str], secrets: tuple[str, ...], last_step: str = "image") -> None:
        self._url, self._who, self._last_step = url, who, last_step
        # the longest first, as one may be part of another
        self._secrets = sorted({each for each in (*secrets, url) if each}, key=len, reverse=True)
        self._change = threading.Condition()
        # by state, in the order of sending; a later progress takes an earlier one's place
        self._waiting: dict[str, Report] = {}
        self._sequence, self._final, self._closing = 0, False, False
        self._deadline, self._problem = float("inf"), "there was no time"
        self._thread = threading.Thread(target=self._deliver, name="webhook", daemon=True)
        self._put(STARTED, Event("foundation", "start", "started"))
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if event.state == "failed":
            self._put(FAILED, event)
        elif event.state == "done" and event.step == self._last_step:
            self._put(SUCCEEDED, event)
        else:
            self._put(PROGRESS, event)

    def close(self, tell: Callable[[Event], None], seconds: float = FINAL_SECONDS) -> None:
        """Wait until all is delivered, at most some seconds; tell of a warning when it wasn't."""
        with self._change:
            self._closing, self._deadline = True, time.monotonic() + seconds
            self._change.notify_all()
        # a POST may just have begun
        self._thread.join(seconds + 1)
        with self._change:
            if self._waiting:
                states = ", ".join(self._waiting)
                tell(Event("foundation", "webhook", "warning", f"the webhook didn't get {states}: {self._problem}"))

    def _put(self, state: str, event: Event) -> None:
        with self._change:
            if self._final or self._closing:
                return
            self._sequence += 1
            self._final = state in (SUCCEEDED, FAILED)
            percent = event.data.get("percent")
            text = {"message": event.message, **({name: str(event.data.get(name, "")) for name in ("code", "hint")}
                                                 if state == FAILED else {})}
            self._waiting.pop(state, None)
            if self._final:
                self._waiting.pop(PROGRESS, None)
            self._waiting[state] = Report(
                SCHEMA_VERSION, self._sequence, int(event.t), state, **self._who, step=event.step,
                percent=percent if type(percent) is int else None,
                **{name: self._clean(value) for name, value in text.items()})
            self._change.notify_all()

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text[:LONGEST]

    def _deliver(self) -> None:
        while report := self._next():
            problem = self._post(report)
            with self._change:
                self._problem = problem or self._problem
                if not problem and self._waiting.get(report.state) is report:
                    del self._waiting[report.state]
            if problem:
                time.sleep(RETRY_SECONDS)

    def _next(self) -> Report | None:
        """The report to send next; None when there is none and none will come, or the time is over."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closing)
            if time.monotonic() >= self._deadline:
                return None
            return next(iter(self._waiting.values()), None)

    def _post(self, report: Report) -> str:
        """What went wrong, "" when it was delivered; without the URL, which is secret."""
        headers = {"Content-Type": "application/json", "User-Agent": "cornerstone"}
        try:
            # the site takes http and https only, and so does the opener
            request = urllib.request.Request(self._url, report.to_json(), headers)  # noqa: S310
            left = max(0.1, min(POST_SECONDS, self._deadline - time.monotonic()))
            # a POST doesn't survive a redirect
            with opener().open(request, timeout=left):
                return ""
        except urllib.error.HTTPError as error:
            return f"it says {error.code}"
        except Exception as error:  # whatever it is, it must not end the thread that delivers
            reason = getattr(error, "reason", error)
            return self._clean(f"{type(reason).__name__}: {reason}")
