"""What the pods' volumes would hold."""

import subprocess


def make_samples(folder):
    """A CA, a certificate with its key, a CRL and a password."""
    folder.mkdir()

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *key, "-subj", "/CN=events.example", "-keyout", "tls.key", "-out", "tls.csr")
    (folder / "san").write_text("subjectAltName=DNS:events.example\nextendedKeyUsage=serverAuth,clientAuth\n")
    issue = ["-CA", "ca.crt", "-CAkey", "ca.key", "-days", "90", "-extfile", "san"]
    openssl("x509", "-req", "-in", "tls.csr", *issue, "-out", "tls.crt")
    (folder / "index").write_text("")
    (folder / "number").write_text("01\n")
    (folder / "ca.cnf").write_text("[ca]\ndefault_ca=it\n[it]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n")
    crl = ["-gencrl", "-keyfile", "ca.key", "-cert", "ca.crt", "-crldays", "90"]
    openssl("ca", "-config", "ca.cnf", *crl, "-out", "crl.pem")
    (folder / "password").write_text("word\n")
    return folder
