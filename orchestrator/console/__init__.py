"""The web console: pages for people, on starlette-admin over the registry. What it does, the domain does.

starlette-admin gives tables, search, filters, forms, confirmations, flash messages and protection from forged requests.
Parts of a page that show how it is now are HTML of the server, fetched again every few seconds (`static/console.js`).
"""
