"""The role `witness`: cosigns checkpoints of other parties' logs (C2SP tlog-witness).

`submission` decides about a request without I/O. `folder` keeps the last cosigned checkpoint of each log on the disk.
`server` answers over HTTP.
"""
