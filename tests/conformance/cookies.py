"""Server cookies as replicas of any maker share them (RFC 9018)."""

import ipaddress
import struct
import time

MASK = 0xFFFF_FFFF_FFFF_FFFF


def siphash24(key, data):
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(v, 4)
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])


def rounds(v, count):
    for _ in range(count):
        for a, b, left in ((0, 1, 13), (2, 3, 16)):
            v[a] = v[a] + v[b] & MASK
            v[b] = turned(v[b], left) ^ v[a]
        v[0] = turned(v[0], 32)
        for a, b, left in ((2, 1, 17), (0, 3, 21)):
            v[a] = v[a] + v[b] & MASK
            v[b] = turned(v[b], left) ^ v[a]
        v[2] = turned(v[2], 32)


def turned(word, left):
    return (word << left | word >> (64 - left)) & MASK


def server_part(client_cookie, client, secret, timestamp):
    """Version 1 (RFC 9018, 4)."""
    header = struct.pack(">B3xI", 1, timestamp)
    return header + siphash24(bytes.fromhex(secret), client_cookie + header + ipaddress.ip_address(client).packed)


def problem(cookie, client_cookie, client, secret):
    """What is wrong with a cookie that a server has just made."""
    if len(cookie) != 24:
        return f"the cookie has {len(cookie)} octets, not 24"
    if cookie[:8] != client_cookie:
        return "the cookie does not begin with the client's"
    (timestamp,) = struct.unpack(">I", cookie[12:16])
    if abs(timestamp - time.time()) > 10:
        return f"the cookie's time is off by {timestamp - time.time():.0f} s"
    if cookie[8:] != server_part(client_cookie, client, secret, timestamp):
        return "the cookie's hash is not that of the shared secret"
    return None


# The first example of RFC 9018, A.
assert (
    server_part(
        bytes.fromhex("2464c4abcf10c957"), "198.51.100.100", "e5e973e5a6b2a43f48e7dc849e37bfcf", 1559731985
    ).hex()
    == "010000005cf79f111f8130c3eee29480"
)
