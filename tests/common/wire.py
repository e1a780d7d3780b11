"""A bad network between namespaces of one machine, where the kernel has none (tc netem) or does not say what it did.

    wire.py NAME...

Each NAME becomes a network namespace with the address 10.77.0.N, N counted from 1, on a tunnel device whose other end is here. Every
packet between two of them takes 50 ms, give or take 20; of 100 packets 2 are lost and 1 arrives twice. Ready is said in one line of
JSON. Then orders are taken, one a line, each answered with one line of JSON, the packets so far by what became of them:

    cut NAME    nothing goes in or out of it any more
    heal NAME
    count

Needs root. When its input ends the namespaces are gone.
"""

import fcntl
import heapq
import itertools
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

DELAY_S, JITTER_S = 0.050, 0.020
LOST, TWICE = 0.02, 0.01


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def open_end(name, address):
    """A namespace and the descriptor that its packets come out of."""
    ip("netns", "add", name)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    answer = fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH14x", b"wire%d", IFF_TUN | IFF_NO_PI))
    device = answer[:16].rstrip(b"\0").decode()
    ip("link", "set", device, "netns", name)
    ip("-n", name, "address", "add", f"{address}/24", "dev", device)
    ip("-n", name, "link", "set", device, "up")
    ip("-n", name, "link", "set", "lo", "up")
    return end


def carry(names):
    address = {name: f"10.77.0.{nth}" for nth, name in enumerate(names, 1)}
    ends = {name: open_end(name, address[name]) for name in names}
    by_address = {bytes(map(int, text.split("."))): name for name, text in address.items()}
    selector = selectors.DefaultSelector()
    for name, end in ends.items():
        selector.register(end, selectors.EVENT_READ, name)
    selector.register(sys.stdin.buffer.raw, selectors.EVENT_READ)
    chance, nth = random.Random(30), itertools.count()
    cut, count = set(), {"carried": 0, "lost": 0, "twice": 0, "cut": 0}
    under_way, orders = [], b""

    def say():
        print(json.dumps(count), flush=True)

    def take(source, packet):
        target = by_address.get(packet[16:20])
        if target is None:
            return
        if source in cut or target in cut:
            count["cut"] += 1
            return
        if chance.random() < LOST:
            count["lost"] += 1
            return
        count["carried"] += 1
        copies = 1
        if chance.random() < TWICE:
            count["twice"] += 1
            copies = 2
        for _ in range(copies):
            at = time.monotonic() + DELAY_S + chance.uniform(-JITTER_S, JITTER_S)
            heapq.heappush(under_way, (at, next(nth), target, packet))

    def deliver():
        """Hands over what has arrived, and tells how long the next one takes."""
        while under_way:
            at, _, target, packet = under_way[0]
            wait = at - time.monotonic()
            if wait > 0:
                return wait
            heapq.heappop(under_way)
            try:
                os.write(ends[target], packet)
            except OSError:
                # A queue that is full loses packets, as everywhere.
                count["lost"] += 1
        return None

    say()
    while True:
        for key, _ in selector.select(deliver()):
            if key.data is None:
                read = os.read(sys.stdin.fileno(), 4096)
                if not read:
                    return
                *lines, orders = (orders + read).split(b"\n")
                for line in lines:
                    verb, *who = line.decode().split()
                    if verb == "cut":
                        cut.update(who)
                    elif verb == "heal":
                        cut.difference_update(who)
                    say()
                continue
            try:
                take(key.data, os.read(key.fd, 65536))
            except BlockingIOError:
                pass


def main():
    names = sys.argv[1:]
    try:
        carry(names)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)


main()
