"""A process from outside: started, seated, listened to, ended.

Imports `spec`, `machine` and `cost`; never `worker`, which is its other end.
"""
