"""The domain: names, registry, workflows, callbacks and the ejabberd admin client.

Knows nothing of Celery, HTTP servers or slixmpp; everything it needs from outside comes in through `Services`.
"""
