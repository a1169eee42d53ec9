from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.shared import certificate
from services.shared.access import Access
from tests.shared.authority import Authority

HERE, EXPIRY = Path("x.pem"), "emojinet_tls_certificate_expiry_timestamp_seconds"


@pytest.mark.parametrize(
    ("access", "host"),
    [
        (Access(), "127.0.0.1"),
        (Access(), "::1"),
        (Access(), "localhost"),
        (Access(insecure=True), "0.0.0.0"),
        (Access(tls_cert=HERE, tls_key=HERE), "0.0.0.0"),
        (Access(tls_cert=HERE, tls_key=HERE, tls_client_ca=HERE), "::"),
    ],
)
def test_plaintext_stays_on_this_machine_and_tls_may_go_anywhere(access: Access, host: str) -> None:
    access.check(host)


@pytest.mark.parametrize(
    ("access", "host", "told"),
    [
        (Access(), "0.0.0.0", "give --tls-cert and --tls-key, or --insecure"),
        (Access(), "::", "--host :: can be reached from other machines"),
        (Access(), "", "can be reached from other machines"),
        (Access(), "inference.example", "can be reached from other machines"),
        (Access(tokens=HERE), "192.0.2.1", "can be reached from other machines"),
        (Access(tls_cert=HERE), "127.0.0.1", "--tls-cert and --tls-key need each other"),
        (Access(tls_key=HERE, insecure=True), "::1", "--tls-cert and --tls-key need each other"),
        (Access(tls_client_ca=HERE), "::1", "--tls-client-ca needs --tls-cert"),
    ],
)
def test_what_does_not_go_together_is_told_with_what_would_be_right(
    access: Access, host: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        access.check(host)


def test_when_the_certificate_expires_is_a_metric(tmp_path: Path) -> None:
    chain, key = Authority(tmp_path).issue()
    registry = CollectorRegistry()
    assert Access().credentials(registry) is None
    assert registry.get_sample_value(EXPIRY) is None

    assert Access(tls_cert=chain, tls_key=key).credentials(registry) is not None

    assert registry.get_sample_value(EXPIRY) == certificate.expiry(chain, key)
