"""What was seen, who is at it, and what came of it: the one place that every process of the project agrees on.

SQLite below `$RUNBOOKS_HOME` by default, PostgreSQL in production: `RUNBOOKS_LEDGER_URL`. Tables (`tables.py`):

clusters      The cluster blocks as last read from Prefect. Names (`source`) only look a cluster up; its identity is
              `cluster_id`, the UUID in the cloud.
observations  Append-only: one row for each thing a source said about an alarm, duplicates too.
occurrences   One row for each alarm that occurred, however many sources told of it: cluster, alarm id, host, serial
              number and time as far as they are known; when it was cleared; which episode follows it, and how the
              page ended for it.
episodes      One row for each time that a cluster needed a runbook; at most one per cluster and alarm id is open.
              raised (waits for a run) -> running or waiting (a run holds it by a lease) -> verifying (25 minutes in
              which a relapse continues it) -> closed. `token` grows with each holder: it is the fence.
polls         When each cluster's alarm list was last read, whether Manager offers it, and how far Manager's clock is.
rejections    What was received and could not be used, with the reason; the same thing again is counted.
sources       When each source was last heard.
messages      Ids of messages that must not be accepted twice.
intakes       When each intake was started and last alive: their gaps are our own outages.
mode_changes  How the modes in the cluster blocks changed, as the intake saw it.
measured      How each episode went, in seconds and in words, measured once when it was closed: for `/metrics`.

`observing.py` has the rules for what is seen, `episodes.py` those for who acts; `database.py` opens the ledger.
Whoever writes does so alone (`Ledger.writing`), so a rule may read, decide and write without a race.
"""
