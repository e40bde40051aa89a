"""What the intake counts and measures, for Prometheus: `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

COMMIT_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
LAG_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


class Metrics:
    """One intake's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "runbooks_intake_accepted", "Observations that told something new", ["source"], registry=self.registry
        )
        self.duplicates = Counter(
            "runbooks_intake_duplicates", "Observations that were known already", ["source"], registry=self.registry
        )
        self.rejected = Counter(
            "runbooks_intake_rejected", "What could not be used", ["source", "reason"], registry=self.registry
        )
        self.commit = Histogram(
            "runbooks_intake_commit_seconds",
            "From being handed in to being on disk",
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        self.untold = Counter(
            "runbooks_intake_untold_changes", "News that became no event: too much at once", registry=self.registry
        )
        self.queue_age = Gauge(
            "runbooks_intake_queue_age_seconds",
            "Age of the oldest delivery that is not on disk yet",
            registry=self.registry,
        )
        self.unstarted = Gauge(
            "runbooks_intake_unstarted_episodes", "Episodes that wait for their run", registry=self.registry
        )
        self.dispatch_lag = Histogram(
            "runbooks_intake_dispatch_lag_seconds",
            "From an episode's need of a run to that run",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self.runs_started = Counter(
            "runbooks_intake_runs_started", "Flow runs created, or scheduled anew", ["how"], registry=self.registry
        )
        self.overdue_wait = Gauge(
            "runbooks_intake_overdue_wait_seconds",
            "How long ago the oldest wait should have ended whose run still waits",
            registry=self.registry,
        )
        self.breaker_open = Gauge(
            "runbooks_breaker_open", "Whether the breaker has tripped: nothing is changed", registry=self.registry
        )
        self.brakes_on = Gauge(
            "runbooks_brakes_on",
            "Brakes that a person has put on, the stop file of this machine among them",
            registry=self.registry,
        )
        self.approvals = Gauge(
            "runbooks_approvals_open", "Questions that persons are being asked", registry=self.registry
        )
        self.tickets_open = Gauge("runbooks_tickets_open", "Tickets that are not resolved", registry=self.registry)
        self.tickets_undelivered = Gauge(
            "runbooks_tickets_undelivered_changes",
            "What ticket systems are to be told and have not taken yet",
            registry=self.registry,
        )
        self.tickets_undelivered_age = Gauge(
            "runbooks_tickets_undelivered_age_seconds",
            "Age of the oldest change that a ticket system has not taken yet",
            registry=self.registry,
        )
        self.dispatch_errors = Counter(
            "runbooks_intake_dispatch_errors", "Times that Prefect did not take a run", ["kind"], registry=self.registry
        )
        self.last_seen = Gauge(
            "runbooks_intake_source_last_seen_seconds",
            "When a source was last heard, since 1970",
            ["source"],
            registry=self.registry,
        )
        self.polls = Counter("runbooks_intake_polls", "Alarm lists read", ["result"], registry=self.registry)
        self.poll_overdue = Gauge(
            "runbooks_intake_poll_overdue_seconds",
            "How late the latest reading of an alarm list is",
            registry=self.registry,
        )
        self.datagrams_lost = Gauge(
            "runbooks_intake_datagrams_lost",
            "Syslog datagrams given up because a queue was full",
            registry=self.registry,
        )
        self.refused_connections = Gauge(
            "runbooks_intake_refused_connections", "Syslog connections closed at once", ["why"], registry=self.registry
        )
