"""A ledger beside the system: what was acknowledged and what was done, counted while everything is killed (`make chaos`).

::

    load      a process; submits tasks and writes each acknowledged one into the book       load.py
    workers   `sealbus worker run bank.py:agent`, two processes; write each effect           bank.py
    servers   nats-server alone, three that are a cluster, or these and a leaf node          servers.py
    site      Workload API, servers on a disk that forgets, OPA, edge, auth callout, notary  site.py
    faults    kill any of them; cut power or network; fill the disk; set clocks wrong;       faults.py
              restore a backup; run the release before; send poison                          restore.py
    count     after all that: which of the promises (tests/promises) were broken             count.py
    cells     two cells instead, with senders and agents in both, of which one is moved      cells.py

The book is SQLite on a disk of its own, which no fault touches. Nothing of sealbus writes into it but a handler's effect.
"""
