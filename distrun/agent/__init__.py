"""One agent a node: torch's elastic engine, with workers forked warm.

`__main__.py` is the program; nothing else imports this room.
"""
