"""A ledger beside the system: what was acknowledged and what was done, counted while everything is killed (`make chaos`).

::

    load      a process; submits tasks and writes each acknowledged one into the book       load.py
    workers   `sealbus worker run bank.py:agent`, two processes; write each effect           bank.py
    site      Workload API, nats-server on a disk that forgets what was not synced           site.py
    faults    kill a worker, NATS, both; cut the power; fill the disk                        faults.py
    count     after all that: lost, doubled, unrecorded, handled though denied               count.py

The book is SQLite on a disk of its own, which no fault touches. Nothing of sealbus writes into it but a handler's effect.
"""
