"""Every error of ours, so that a caller catches as much or as little as it means to.

RunbookError                one sentence: what, where, what to do
├── ConfigurationError      a block, a parameter or a command line is wrong
│   └── UnknownCluster      no block of that name
├── LedgerUnavailable       the ledger cannot be read or written now: nothing was accepted, nothing may be changed
├── CannotTell              a question of the page has no answer: never a yes, never a no
├── Refused                 a gate does not let a mutation pass
├── DryRun                  a mutation that was not sent, because this is a dry run
├── StepFailed              a step was carried out and did not succeed
└── RemoteError             Manager or the cloud; names service, method and path
    ├── Unreachable         no answer: refused, reset, timed out (worth repeating a read)
    │   └── Untrusted       TLS: the certificate is not the one the block vouches for
    ├── ServerTrouble       5xx or an answer that cannot be read (worth repeating a read)
    │   └── Throttled       429; carries what Retry-After asked for
    ├── Rejected            4xx; carries the service's own code and words
    │   ├── NotAuthorized   401, 403
    │   ├── NotOffered      404, 405, 501 from a route, or none declared for it
    │   └── SessionLost     Manager sent us to its login page
    ├── LoginSuspended      a password was rejected once; no further try until the block changes
    └── OutcomeUnknown      a mutation was sent and its answer lost: it may have happened
"""

from tasks.models import Outcome


class RunbookError(Exception):
    """An error with a sentence fit for a person: what, where, what to do."""


class ConfigurationError(RunbookError):
    """A block, a parameter or a command line is wrong; nothing was started."""


class UnknownCluster(ConfigurationError):
    """No `Cluster` block of that name exists."""


class LedgerUnavailable(RunbookError):
    """The ledger does not answer; what was asked of it did not happen. Worth trying again."""


class CannotTell(RunbookError):
    """A question has no answer now; the run escalates and changes nothing."""


class Refused(RunbookError):
    """A gate keeps a mutation from happening; the message is the gate's reason.

    Args:
        outcome: the word the trace ends with; `CLEARED` where the alarm went away before the mutation was needed.
        incident: id of the tripped breaker; its ticket is the ticket.
        by_hand: the cloud offers no API for what is needed, so a person can do it and a program cannot.
    """

    def __init__(
        self, reason: str, outcome: Outcome = Outcome.REFUSED, *, incident: str = "", by_hand: bool = False
    ) -> None:
        super().__init__(reason)
        self.outcome, self.incident, self.by_hand = outcome, incident, by_hand


class DryRun(RunbookError):
    """A mutation that was planned and not sent; the message says what would have been done."""


class StepFailed(RunbookError):
    """A step was carried out and ended without success."""


class EndNotSeen(StepFailed):
    """A change was sent, or may have been, and does not show: nobody else is to make it meanwhile."""


class RemoteError(RunbookError):
    """Manager or a cloud API did not do what was asked.

    Args:
        call: service, method and path, for example `Manager GET alarms`.
        why: what happened, in words.
        status: the HTTP status, 0 where there was no answer.
        code: the service's own error code, empty where it gave none.
    """

    def __init__(self, call: str, why: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(call, why)  # all that is needed to make it anew: errors are pickled
        self.call, self.why, self.status, self.code = call, why, status, code

    def __str__(self) -> str:
        return f"{self.call}: {self.why}"


class Unreachable(RemoteError):
    """No answer came: connection refused or reset, or the time was up."""


class Untrusted(Unreachable):
    """The server's certificate is not vouched for by the CA the block names."""


class ServerTrouble(RemoteError):
    """A 5xx, or an answer that is not what the API's page describes."""


class Throttled(ServerTrouble):
    """A 429; `retry_after` is what the service asked for, in seconds, or None."""

    def __init__(self, call: str, why: str, *, retry_after: float | None = None) -> None:
        super().__init__(call, why, status=429)
        self.retry_after = retry_after


class Rejected(RemoteError):
    """A 4xx: the service understood and said no."""


class NotAuthorized(Rejected):
    """A 401 or 403: the credentials do not carry this right."""


class NotOffered(Rejected):
    """This cloud or this Manager does not offer the route (404, 405, 501, or none declared)."""


class SessionLost(Rejected):
    """Manager answered 302 to its login page: the session is gone, the password is not in doubt."""


class LoginSuspended(RemoteError):
    """A password was rejected; no further login until the block changes (Manager locks a user after 5)."""


class OutcomeUnknown(RemoteError):
    """A mutation was sent and no readable answer came back: only the world can tell what happened."""
