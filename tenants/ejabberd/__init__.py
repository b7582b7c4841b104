"""The client of ejabberd's admin interface."""
