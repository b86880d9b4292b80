"""Writes rsa.json: ciphertexts of the methods rsa-oaep, rsa-hybrid and aes-ecb
that the Python package cryptography has made, with the private key to open them."""
import base64, hashlib, json, os
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

private = rsa.generate_private_key(65537, 2048)
public = private.public_key()
der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
key_id = hashlib.sha256(der).digest()[:4].hex()
b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
oaep = lambda label: padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
out = {"private": private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
    "public": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
    "public_hex": der.hex(), "sealed": [], "ecb": []}
texts = ["", "a", "ann@shop.example", "Ümläut ß 漢字 🙂", "x" * 190, "y" * 1000]
for t in texts:
    if len(t) <= 190:
        head = "sl1.rsa." + key_id
        out["sealed"].append({"text": t, "domain": "place", "sealed": head + "." + b64(public.encrypt(t.encode(), oaep((head + ".place").encode())))})
    head = "sl1.rsah." + key_id
    bound, key, nonce = (head + ".place").encode(), os.urandom(32), os.urandom(12)
    out["sealed"].append({"text": t, "domain": "place", "sealed": head + "." + b64(public.encrypt(key, oaep(bound)) + nonce + AESGCM(key).encrypt(nonce, t.encode(), bound))})
    for size in (16, 24, 32):
        k, p = bytes(range(size)), PKCS7(128).padder()
        e = Cipher(algorithms.AES(k), modes.ECB()).encryptor()
        out["ecb"].append({"key": k.hex(), "text": t, "hex": (e.update(p.update(t.encode()) + p.finalize()) + e.finalize()).hex()})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "rsa.json"), "w") as f:
    json.dump(out, f, indent=1, ensure_ascii=True)
    f.write("\n")
