"""Writes vectors.json with digests and ciphertexts that do not come from this
project: hashlib, hmac and the package cryptography. MD2 is from RFC 1319."""
import hashlib, hmac, json, os
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.cmac import CMAC

texts = ["", "a", "abc", "ann@shop.example", "Ümläut ß 漢字 🙂", "line\nbreak\ttab\x00nul", "x" * 63, "y" * 64, "z" * 1000, "12.50"]
key = b"0123456789abcdef0123456789abcdef"
out = {"digests": [], "siv": [], "xaes": [], "legacy": []}
names = {"md5": "md5", "sha1": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512"}
for t in texts:
    for n, h in names.items():
        out["digests"].append({"method": n, "text": t, "hex": hashlib.new(h, t.encode()).hexdigest()})
    for n, h in (("hmac-sha256", "sha256"), ("hmac-sha512", "sha512")):
        out["digests"].append({"method": n, "text": t, "hex": hmac.new(key, t.encode(), h).hexdigest()})
rfc1319 = {"": "8350e5a3e24c153df2275c9f80692773", "a": "32ec01ec4a6dac72c0ab96fb34c0b5d1", "abc": "da853b0d3f88d99b30283a69e6ded6bb",
    "message digest": "ab4f496bfb2a530b219ff33031fe06b0", "abcdefghijklmnopqrstuvwxyz": "4e8ddff3650292ab5a4108c3aa47940b",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789": "da33def2a42df13975352846c30338cd"}
for t, h in rfc1319.items():
    out["digests"].append({"method": "md2", "text": t, "hex": h})

for size in (32, 48, 64):
    k = bytes(range(size))
    for t in texts:
        c = AESSIV(k).encrypt(t.encode(), [b"bound"]) if t else None  # the package refuses empty texts
        if c:
            out["siv"].append({"key": k.hex(), "text": t, "bound": "bound", "hex": c.hex()})

def xaes(k, nonce, plain, bound):
    def block(b):
        e = Cipher(algorithms.AES(k), modes.ECB()).encryptor()
        return e.update(b) + e.finalize()
    # The derivation is NIST SP 800-108r1 in counter mode with CMAC.
    derived = b""
    for i in (1, 2):
        c = CMAC(algorithms.AES(k))
        c.update(bytes([0, i]) + b"X\x00" + nonce[:12])
        derived += c.finalize()
    return AESGCM(derived).encrypt(nonce[12:], plain, bound)

assert xaes(b"\x01" * 32, b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM", b"").hex() == "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
for t in texts:
    n = hashlib.sha256(t.encode()).digest()[:24]
    out["xaes"].append({"key": key.hex(), "nonce": n.hex(), "text": t, "bound": "place", "hex": xaes(key, n, t.encode(), b"place").hex()})
from cryptography.hazmat.primitives.padding import PKCS7
for t in texts:
    for size in (16, 24, 32):
        k, iv = bytes(range(size)), hashlib.md5(t.encode()).digest()
        p = PKCS7(128).padder()
        for method, mode, plain in (("aes-cbc", modes.CBC(iv), p.update(t.encode()) + p.finalize()), ("aes-ctr", modes.CTR(iv), t.encode())):
            e = Cipher(algorithms.AES(k), mode).encryptor()
            out["legacy"].append({"method": method, "key": k.hex(), "nonce": iv.hex(), "text": t, "hex": (iv + e.update(plain) + e.finalize()).hex()})
with open(os.path.join(os.path.dirname(__file__), "vectors.json"), "w") as f:
    json.dump(out, f, indent=1, ensure_ascii=True)
    f.write("\n")
