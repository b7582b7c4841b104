"""Chats, rooms, messages and the signals beside them."""
