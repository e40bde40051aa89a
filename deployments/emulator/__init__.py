"""A pretend cloud region with MRS clusters, honest about what is known of the real one.

`Region` holds the state, the clock and the faults, and knows nothing of HTTP; `app_of` gives its faces (Manager, MRS,
ECS, IAM, CTS) for `httpx.ASGITransport`, `serve` puts them on a port. Routes nobody has verified are marked ASSUMED and
missing in the profile `documented`; where the real behaviour is unknown, the choice made is said beside the code.
Nothing else of this project is imported here, so that a client and the emulator cannot share a mistake.
"""
