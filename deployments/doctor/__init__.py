"""`runbooks doctor`: what answers for a cluster, what a person must settle, and what runs will do there.

command      One cluster or the fleet; the exit code.
examination  One cluster: asked, kept, concluded.
checks       The read routes of Manager and the cloud.
logins       The logins for changes, and the ticket system's.
clocks       How far the clocks of those who answered are off.
sources      Who tells of alarms, and whether Prefect's API asks who comes.
findings     What was found, and asking for it.
advice       What to do, by the kind of failure.
verdicts     Automatic, approved, handed off or not done, and why.
words        What is printed.
"""
