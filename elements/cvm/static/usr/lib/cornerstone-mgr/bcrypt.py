"""In the place of bcrypt for Ceph's manager, whose modules each run in a sub-interpreter.

The real one is made with PyO3 and refuses to be loaded there, and with it every module, since they share a file that
imports it for the dashboard's passwords. There is no dashboard here, and nothing to hash.
"""
