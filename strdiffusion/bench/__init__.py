"""How fast this machine is with these networks: scripts/benchmark.py.

* timing.py: medians of repeated calls, and the best rate that the machine reaches; networks.py, samplers.py, training.py: what is timed
* report.py: tables
"""
