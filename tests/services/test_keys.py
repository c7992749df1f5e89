"""API keys: shown once, stored as an HMAC, refused when damaged, revoked or expired."""

import sqlite3
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from dataforge.errors import ConfigError, CorruptData, UnknownName
from dataforge.services import database, keys
from dataforge.services.keys import SCOPES, KeyStore, create_key, id_of, list_keys, matches, revoke_key


def test_a_key_is_never_stored_in_the_clear(workspace):
    made = [create_key(workspace, scopes=["rows:read"], label="a") for _ in range(3)]
    written = b"".join(path.read_bytes() for path in (workspace.path / "service").iterdir())
    for key in made:
        secret = key.split("_")[3]
        assert secret.encode() not in written
        assert key.encode() not in written
        assert id_of(key).encode() in written
    assert len(set(made)) == 3


def test_folder_database_and_pepper_are_their_owners_alone(workspace):
    create_key(workspace, scopes=["rows:read"])
    folder = workspace.path / "service"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("pepper", "service.sqlite"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_key_matches_itself_and_no_other_one(workspace):
    first, second = (create_key(workspace, scopes=["rows:read"]) for _ in range(2))
    store = KeyStore(workspace.path)
    known = store.find(id_of(first))
    assert matches(first, known, store.pepper())
    assert not matches(second, known, store.pepper())
    assert not matches(first, known, b"another pepper, 32 bytes long...")
    assert store.find("0000000000") is None


@given(place=st.integers(0, 70), character=st.sampled_from("0aZ_ -é"))
def test_a_changed_character_is_found_by_the_checksum(place, character):
    body = "df_live_0123456789_" + "aB3" * 14 + "x"
    key = f"{body}_{keys._checksum(body)}"
    changed = key[:place] + character + key[place + 1 :]
    if changed[:19] != key[:19] and changed.count("_") == 4 and changed.startswith("df_live"):
        assert id_of(changed) is None  # another id, and a checksum that is not its own
    assert (id_of(changed) == "0123456789") == (changed == key)


@pytest.mark.parametrize("text", ["", "df", "Bearer x", "df_live_0123456789_short_000000", "df_live_" + "a" * 500])
def test_what_is_no_key_has_no_id(text):
    assert id_of(text) is None


def test_keys_are_listed_with_their_state_and_without_secrets(workspace):
    create_key(workspace, scopes=["rows:read", "plans:write"], label="trainer", days=1)
    second = create_key(workspace, scopes=["artifacts:read"])
    revoke_key(workspace, id_of(second))
    told = {row["id"]: row for row in list_keys(workspace)}
    assert set(told[id_of(second)]) == {
        "id", "scopes", "label", "state", "created_at", "expires_at", "revoked_at", "last_used_at",
    }  # fmt: skip
    assert told[id_of(second)]["state"] == "revoked"
    (other,) = [row for row in told.values() if row["label"] == "trainer"]
    assert (other["scopes"], other["state"]) == ("plans:write rows:read", "live")
    assert other["expires_at"] - other["created_at"] == 86_400


def test_a_workspace_without_keys_lists_none_and_makes_no_database(workspace):
    assert list_keys(workspace) == []
    assert not (workspace.path / "service").exists()


def test_unknown_scopes_names_and_lifetimes_are_refused(workspace):
    with pytest.raises(UnknownName) as caught:
        create_key(workspace, scopes=["row:read"])
    assert "rows:read" in str(caught.value)
    wrong: dict
    for wrong in ({"scopes": []}, {"scopes": SCOPES, "days": 0}, {"scopes": SCOPES, "label": "a\nb"}):
        with pytest.raises(ConfigError):
            create_key(workspace, **wrong)
    with pytest.raises(ConfigError):
        create_key(workspace, scopes=SCOPES, environment="Live!")
    with pytest.raises(UnknownName):
        revoke_key(workspace, "0000000000")


def test_a_lost_or_damaged_pepper_is_said(workspace):
    create_key(workspace, scopes=SCOPES)
    pepper = workspace.path / "service" / "pepper"
    for content in (b"xyz", b"00", None):
        pepper.unlink() if content is None else pepper.write_bytes(content)
        with pytest.raises(CorruptData) as caught:
            KeyStore(workspace.path).pepper()
        assert caught.value.where == "service/pepper"


def test_a_database_of_a_later_version_is_refused(workspace):
    engine = database.create_database(workspace.path)
    with engine.begin() as db:
        db.execute(update(database.facts).values(value="99"))
    with pytest.raises(database.WorkspaceError):
        create_key(workspace, scopes=SCOPES)


def test_the_pepper_is_made_once(workspace):
    create_key(workspace, scopes=SCOPES)
    before = (workspace.path / "service" / "pepper").read_bytes()
    create_key(workspace, scopes=SCOPES)
    assert (workspace.path / "service" / "pepper").read_bytes() == before


def test_use_is_noted_about_once_a_minute(workspace):
    key = create_key(workspace, scopes=SCOPES)
    store = KeyStore(workspace.path)
    now = int(time.time())
    for at, expected in ((now, now), (now + 30, now), (now + 61, now + 61)):
        store.note_use(store.find(id_of(key)), at)
        assert store.find(id_of(key)).last_used_at == expected


def test_the_database_is_sqlite_with_a_write_ahead_log(workspace):
    create_key(workspace, scopes=SCOPES)
    with sqlite3.connect(workspace.path / "service" / "service.sqlite") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
