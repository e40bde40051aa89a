"""The compliance sweep: every cluster is looked at, read-only, and held against a table of checks.

seen.py     What was read of one cluster, errors included.
checks.py   The table of checks, and how each is answered from that: pure functions.
looking.py  Reads one cluster; pacing.py keeps to few requests at a time and to a budget for each endpoint.
targets.py  Which clusters a sweep is about: those of the blocks, and those of the clouds that have none.
work.py     One sweep at work in this process; keeping.py looks at many clusters and writes down what was seen.
reports.py  What came of a sweep, and what changed since another one: forms.py has JSON and CSV, picture.py HTML.
steps.py    The task runs that Prefect shows of it.
"""
