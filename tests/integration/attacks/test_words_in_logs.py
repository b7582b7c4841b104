"""What people write gets into no log, also when a process of ejabberd that holds it ends by a fault."""

from bench.testbed.chat_server import ChatServer
from bench.testbed.waiting import until

SECRET = "the secret text"
ROOM = "team.words"


async def test_no_text_is_logged_when_processes_end_badly(chat_server: ChatServer) -> None:
    server = chat_server
    await server.new_operator("bob.words")
    await server.new_operator("ann.words")
    await server.command("lhc_make_rooms", host=server.host, rooms=[{"name": ROOM, "title": "The team"}])
    room = f"{ROOM}@conference.{server.host}"
    async with server.operator("bob.words") as bob, server.operator("ann.words") as ann:
        for operator, nick in ((bob, "Bob"), (ann, "Ann")):
            await operator.join(room, nick)
        bob.set_presence(status=SECRET)
        bob.write(room, SECRET, kind="groupchat")
        bob.write("ann.words", SECRET)
        await ann.hears(room, SECRET)
        await ann.reads(SECRET)
        invited = {"room": ROOM, "users": ["eve.words"], "reason": SECRET}
        await server.command("lhc_invite_to_room", host=server.host, **invited)
        await server.command(
            "lhc_present", host=server.host, user="bob.words", resource="desk", nick=[], status=[SECRET]
        )
        bob.write("ann.words", SECRET, subject="fail")
        await until(lambda: "Hook user_send_packet crashed" in server.logs(), "the hook fails")
        await server.command("test_end_room", room=ROOM, service=f"conference.{server.host}")
        await until(lambda: "State machine" in server.logs(), "the room's end is logged")
        await server.command("test_end_session", user="bob.words", host=server.host, resource="desk")
        await until(lambda: "Generic server" in server.logs(), "the session's end is logged")
        await until(bob.disconnected.is_set, "the session has ended")
        await ann.taken()
    assert "mod_ends_badly" in server.logs(), "where it happened is told"
    assert [line for line in server.logs().splitlines() if "secret" in line] == []
