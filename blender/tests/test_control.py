# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation with a daemon that answers, is silent, lies, dies, or is somebody else."""

import os
import socket
import struct
import threading
import time

import daemon as d
from bed import Bed
from atelier import control
from atelier.control import Client, Failed, Foreign, Gone, Silent


class Talk(Bed):
    def ask(self, **how):
        with Client(self.daemon.path, 0.5) as client:
            return client.ask({"ask": "locks"}, "locks", **how)

    def rule(self, act):
        self.daemon.rules["locks"] = act

    def test_an_answer_is_its_value(self):
        self.daemon.lock_for("a", "Bob")
        self.assertEqual(self.ask()[0]["holder"], "Bob")

    def test_several_requests_in_one_conversation(self):
        with Client(self.daemon.path) as client:
            for _ in range(3):
                self.assertIsNone(client.ask({"ask": "lock", "path": "a"}, "done"))

    def test_a_failure_has_its_code_and_words_on_one_line(self):
        self.rule(lambda stream, _: d.fail(stream, 5, "Bob\x1b[2J\nhas it"))
        with self.assertRaises(Failed) as caught:
            self.ask()
        self.assertTrue(caught.exception.refused)
        self.assertEqual(caught.exception.cause, "Bob [2J has it")

    def test_a_socket_path_over_the_limit(self):
        self.daemon = self.make_daemon(os.path.join(self.dir, "other"), "x" * 90 + "/" + "y" * 90 + "/control.sock")
        self.assertGreater(len(self.daemon.path), control.SOCKET_PATH_MAX)
        self.assertEqual(self.ask(), [])

    def test_nobody_listens(self):
        self.daemon.stop()
        with self.assertRaises(Gone):
            self.ask()
        with open(self.daemon.path, "w", encoding="ascii"):
            with self.assertRaises(Gone):
                self.ask()

    def test_a_name_that_is_no_path(self):
        with self.assertRaises(Gone):
            Client("a\0b")

    def test_silence_ends_in_time(self):
        self.rule(lambda *_: None)
        with self.assertRaises(Silent):
            self.ask(answer_s=0.3)

    def test_trickling_bytes_do_not_move_the_deadline(self):
        def trickle(stream, _):
            whole = d.frame({"say": "answer", "value": {"answer": "locks", "value": ["x" * 100]}})
            for at in range(len(whole)):
                stream.sendall(whole[at:at + 1])
                time.sleep(0.02)

        self.rule(trickle)
        with self.assertRaises(Silent):
            self.ask(answer_s=0.5)

    def test_silence_before_the_greeting_ends_in_time(self):
        ended = threading.Event()
        self.addCleanup(ended.set)
        self.daemon.greeting = lambda _: ended.wait(20)
        with self.assertRaises(Silent):
            self.ask()

    def test_a_full_backlog_is_an_answer_of_its_own(self):
        path = os.path.join(self.dir, "full.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
            for client in clients:
                self.addCleanup(client.close)
                client.setblocking(False)
                client.connect_ex(path)
            with self.assertRaises((Gone, Silent)):
                Client(path, 0.3)

    def test_a_silent_socket_whose_buffer_is_full(self):
        self.rule(lambda *_: None)
        with Client(self.daemon.path) as client, self.assertRaises(control.ControlError):
            for _ in range(100):
                client.ask({"ask": "locks", "filler": "x" * 1_000_000}, "locks", 0.05)

    def test_another_version_and_no_greeting(self):
        self.daemon.protocol = 2
        with self.assertRaises(Foreign):
            self.ask()
        for words in ({"say": "answer", "value": 1}, [], "hello", {"say": "hello", "value": 1}):
            self.daemon.greeting = lambda stream, words=words: d.send(stream, words)
            with self.assertRaises(Foreign):
                self.ask()

    def test_a_full_daemon_says_so(self):
        self.daemon.greeting = lambda stream: d.fail(stream, 9, "busy")
        with self.assertRaises(Failed):
            self.ask()

    def test_garbage(self):
        deep = b"[" * 100_000
        for garbage in (d.frame(b"{]}"), d.frame(b""), d.frame(b"\xff\xfe"), d.frame(deep), d.frame(b"[]"),
                        d.frame(b"7"), d.frame({"say": "answer"}), d.frame({"say": "what", "value": {}}),
                        d.frame({"say": "answer", "value": {"answer": "status", "value": {}}}),
                        struct.pack(">I", 0xFFFF_FFFF), b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            self.rule(lambda stream, _, garbage=garbage: stream.sendall(garbage))
            with self.assertRaises(Foreign, msg=garbage[:40]):
                self.ask(answer_s=1)

    def test_a_failure_without_sense_is_a_failure(self):
        for value in (None, [], {"code": "x", "cause": 7}):
            self.rule(lambda stream, _, value=value: d.send(stream, {"say": "failed", "value": value}))
            with self.assertRaises(Failed):
                self.ask()

    def test_every_cut_of_an_answer(self):
        whole = d.frame({"say": "answer", "value": {"answer": "locks", "value": []}})
        for cut in range(len(whole)):
            def rule(stream, _, cut=cut):
                stream.sendall(whole[:cut])
                return "end"

            self.rule(rule)
            with self.assertRaises(Gone, msg=cut):
                self.ask(answer_s=2)

    def test_progress_goes_before_an_answer_but_not_for_ever(self):
        step = {"say": "progress", "value": {"stage": "s", "done": 1, "total": None, "unit": "items"}}

        def some(stream, _):
            for _ in range(5):
                d.send(stream, step)
            d.answer(stream, "locks", [])

        self.rule(some)
        self.assertEqual(self.ask(), [])

        def endless(stream, _):
            while True:
                d.send(stream, step)

        self.rule(endless)
        with self.assertRaises(Silent):
            self.ask()

    def test_shut_from_another_thread_ends_a_wait(self):
        self.rule(lambda *_: None)
        with Client(self.daemon.path) as client:
            threading.Timer(0.1, client.shut).start()
            with self.assertRaises(Gone):
                client.ask({"ask": "locks"}, "locks", 20)

    def test_another_users_daemon_is_not_believed(self):
        if os.geteuid() != 0:
            self.skipTest("not root: no other user to be")
        path = os.path.join(self.dir, "theirs.sock")
        ready, told = os.pipe()
        os.chmod(self.dir, 0o777)
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen()
            os.write(told, b"x")
            while True:
                time.sleep(1)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, 9)
        os.read(ready, 1)
        with self.assertRaises(Foreign):
            Client(path)

    def test_a_line_from_elsewhere_is_one_short_line(self):
        self.assertEqual(control.line("a\nb\u202ec\x07"), "a b c")
        self.assertEqual(control.line(["a"]), "")
        self.assertEqual(len(control.line("x" * 10_000)), 200)
