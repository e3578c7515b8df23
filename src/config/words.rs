//! The exact words with which configurations are refused, as tables.
//! # Not here: what a sound configuration becomes (`load`).

use super::{Flag, Sources, load};

pub(super) fn file(text: &str) -> Sources {
    Sources { file: Some(("fanfare.toml".into(), text.to_owned())), ..Sources::default() }
}

pub(super) fn env(name: &str, value: &str) -> Sources {
    Sources { env: vec![(name.to_owned(), value.to_owned())], ..Sources::default() }
}

pub(super) fn flag(name: &'static str, key: &'static str, value: &str) -> Sources {
    let value = value.to_owned();
    Sources { flags: vec![Flag { name, key, value }], ..Sources::default() }
}

fn refused(sources: Sources) -> String {
    load(sources).expect_err("must be refused").to_string()
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let cases = [
        (
            "[limits]\nmesage_bytes_max = 1",
            "fanfare.toml: unknown key `limits.mesage_bytes_max`, \
             did you mean `limits.message_bytes_max`?",
        ),
        (
            "[limts]\nfragments_max = 1",
            "fanfare.toml: unknown key `limts.fragments_max`, did you mean `limits.fragments_max`?",
        ),
        ("[mqtt]\nkeepalive = 'x'", "fanfare.toml: unknown key `mqtt.keepalive`"),
        ("[limts]", "fanfare.toml: unknown key `limts`, did you mean `limits`?"),
        (
            "'limits.fragments_max' = 1",
            "fanfare.toml: unknown key `\"limits.fragments_max\"`, \
             did you mean `limits.fragments_max`?",
        ),
        (
            "[[topics.rules]]\nfilter = 'a'\n[[topics.rules]]\nfliter = 'b'",
            "fanfare.toml: unknown key `topics.rules[1].fliter`, \
             did you mean `topics.rules[1].filter`?",
        ),
        (
            "topics.rules = [{ filter = 'a', history.mesages = 1 }]",
            "fanfare.toml: unknown key `topics.rules[0].history.mesages`, \
             did you mean `topics.rules[0].history.messages`?",
        ),
        (
            "topics.rules = [{ filter = 'a', stale_aftr = '1s' }]",
            "fanfare.toml: unknown key `topics.rules[0].stale_aftr`, \
             did you mean `topics.rules[0].stale_after`?",
        ),
        (
            "topics.rules = [{ filter = 'a', maxHz = 1 }]",
            "fanfare.toml: unknown key `topics.rules[0].maxHz`, \
             did you mean `topics.rules[0].max_hz`?",
        ),
        ("\"a\\u001b\" = 1", r#"fanfare.toml: unknown key `"a\u{1b}"`"#),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(file(text)), expected, "{text}");
    }
    let cases = [
        (
            "FANFARE__LIMITS__MESAGE_BYTES_MAX",
            "FANFARE__LIMITS__MESAGE_BYTES_MAX: unknown key `limits.mesage_bytes_max`, \
             did you mean `FANFARE__LIMITS__MESSAGE_BYTES_MAX`?",
        ),
        (
            "FANFARE__shards",
            "FANFARE__shards: unknown key `shards`, did you mean `FANFARE__SHARDS`?",
        ),
        ("FANFARE__", "FANFARE__: unknown key ``"),
        ("FANFARE__A[99999999999]", "FANFARE__A[99999999999]: unknown key `a[99999999999]`"),
    ];
    for (name, expected) in cases {
        assert_eq!(refused(env(name, "1")), expected);
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place_and_what_is_expected() {
    let cases = [
        (
            "limits.fragments_max = 'lots'",
            r#"fanfare.toml: `limits.fragments_max` is "lots", expected a whole number"#,
        ),
        (
            "limits.fragments_max = 12.5",
            "fanfare.toml: `limits.fragments_max` is 12.5, expected a whole number",
        ),
        (
            "limits.fragments_max = -1",
            "fanfare.toml: `limits.fragments_max` is -1, expected a whole number",
        ),
        (
            "limits.fragments_max = true",
            "fanfare.toml: `limits.fragments_max` is true, expected a whole number",
        ),
        (
            "limits.fragments_max = [1]",
            "fanfare.toml: `limits.fragments_max` is a list, expected a whole number",
        ),
        (
            "[limits.fragments_max]\nx = 1",
            "fanfare.toml: `limits.fragments_max` is a table, expected a whole number",
        ),
        (
            "limits.message_bytes_max = '64 KB'",
            "fanfare.toml: `limits.message_bytes_max` is \"64 KB\", \
             expected a size such as 65536, \"64 KiB\" or \"1 MiB\"",
        ),
        (
            "limits.connections_max = 'many'",
            r#"fanfare.toml: `limits.connections_max` is "many", expected "auto" or a whole number"#,
        ),
        (
            "shutdown.grace = 5",
            r#"fanfare.toml: `shutdown.grace` is 5, expected a duration such as "25s" or "1m 30s""#,
        ),
        (
            "listen.public = 'localhost'",
            "fanfare.toml: `listen.public` is \"localhost\", \
             expected an address and port such as \"127.0.0.1:7600\" or \"[::1]:7600\"",
        ),
        ("insecure = 'maybe'", r#"fanfare.toml: `insecure` is "maybe", expected true or false"#),
        (
            "log.level = 'loud'",
            "fanfare.toml: `log.level` is \"loud\", \
             expected one of error, warn, info, debug, trace",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(file(text)), expected, "{text}");
    }
}

#[test]
fn a_list_or_table_of_the_wrong_shape_is_refused_where_it_goes_wrong() {
    let cases = [
        (
            "websocket.origins = ['https://a.example', 'https://a.example/x']",
            "fanfare.toml: `websocket.origins` is \"https://a.example/x\", \
             expected origins such as \"https://example.com\" or \"http://localhost:3000\"",
        ),
        ("limits = 5", "fanfare.toml: `limits` is 5, expected a table"),
        ("topics.rules = 5", "fanfare.toml: `topics.rules` is 5, expected a list of tables"),
        ("topics.rules = [5]", "fanfare.toml: `topics.rules[0]` is 5, expected a table"),
        ("[[topics.rules]]", "fanfare.toml: `topics.rules[0].filter` is missing"),
        (
            "topics.rules = [{ filter = 'a.' }]",
            "fanfare.toml: `topics.rules[0].filter` is \"a.\", \
             but the topic filter is not valid: it has an empty segment",
        ),
        (
            "topics.rules = [{ filter = 'a', history.age = 5 }]",
            "fanfare.toml: `topics.rules[0].history.age` is 5, \
             expected \"inherit\" or a duration such as \"25s\" or \"1m 30s\"",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(file(text)), expected, "{text}");
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_what_would() {
    let cases = [
        (
            "group = 'Prices'",
            r#"group` is "Prices", expected a name of a-z, 0-9 and _ that begins with a letter, at most 32 characters"#,
        ),
        (
            "group = 'other'",
            r#"group` is "other", which is what topics without a group are counted as"#,
        ),
        ("snapshot = 'last'", r#"snapshot` is "last", expected one of latest, keys"#),
        ("snapshot_keys_max = 0", "snapshot_keys_max` is 0, the least is 1"),
        ("snapshot_keys_max = 100_001", "snapshot_keys_max` is 100001, the most is 100000"),
        (
            "overflow = 'drop'",
            r#"overflow` is "drop", expected "auto" or one of catchUp, gap, disconnect"#,
        ),
        ("policy = 'maxHz'", r#"policy` is "maxHz", expected "auto" or one of all, latest"#),
        ("max_hz = 0", r#"max_hz` is 0, expected "off" or a number from 0.01 to 1000"#),
        ("max_hz = 1000.5", r#"max_hz` is 1000.5, expected "off" or a number from 0.01 to 1000"#),
        ("max_hz = nan", r#"max_hz` is NaN, expected "off" or a number from 0.01 to 1000"#),
        ("max_hz = 'fast'", r#"max_hz` is "fast", expected "off" or a number from 0.01 to 1000"#),
        ("presence = 'yes'", r#"presence` is "yes", expected true or false"#),
        ("presence_members_max = 0", "presence_members_max` is 0, the least is 1"),
        ("idle_ttl = '0s'", "idle_ttl` is 0s, the least is 1s"),
        ("stale_after = '999ms'", "stale_after` is 999ms, the least is 1s"),
        (
            "stale_after = 30",
            r#"stale_after` is 30, expected "off" or a duration such as "25s" or "1m 30s""#,
        ),
    ];
    for (text, expected) in cases {
        let text = format!("topics.rules = [{{ filter = 'a' }}, {{ filter = 'b', {text} }}]");
        let expected = format!("fanfare.toml: `topics.rules[1].{expected}");
        assert_eq!(refused(file(&text)), expected, "{text}");
    }
}

#[test]
fn a_rule_that_contradicts_itself_is_refused_with_both_keys() {
    let cases = [
        (
            "[[topics.rules]]\nfilter = 'a'\nmax_hz = 0.5\npolicy = 'all'",
            "`topics.rules[0].max_hz` is 0.5, but `topics.rules[0].policy` is \"all\", \
             which leaves nothing out: take one of them away",
        ),
        (
            "[[topics.rules]]\nfilter = 'a'\noverflow = 'catchUp'\nhistory.messages = 0",
            "`topics.rules[0].overflow` is \"catchUp\", but `topics.rules[0].history.messages` \
             is 0, so there is nothing to catch up from: keep some history, or choose \"gap\" or \
             \"disconnect\"",
        ),
        (
            "[topics.history]\nmessages = 0\n\
             [[topics.rules]]\nfilter = 'a'\noverflow = 'catchUp'",
            "`topics.rules[0].overflow` is \"catchUp\", but `topics.history.messages` is 0, so \
             there is nothing to catch up from: keep some history, or choose \"gap\" or \
             \"disconnect\"",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(file(text)), format!("fanfare.toml: {expected}"));
    }
    for sound in [
        "max_hz = 0.5, policy = 'latest'",
        "history.messages = 0",
        "history.messages = 0, overflow = 'gap'",
        "history.messages = 0, overflow = 'auto'",
        "history.messages = 1, overflow = 'catchUp'",
    ] {
        load(file(&format!("topics.rules = [{{ filter = 'a', {sound} }}]"))).expect(sound);
    }
}

#[test]
fn rules_may_name_so_many_groups_and_no_more() {
    let rules = |count: usize| {
        let rule = |index| format!("[[topics.rules]]\nfilter = 'a'\ngroup = 'g{index}'\n");
        // Names that are given twice count once.
        (0..count).chain(0..count).map(rule).collect::<String>()
    };
    load(file(&rules(32))).expect("as many as there may be");
    assert_eq!(
        refused(file(&rules(33))),
        "fanfare.toml: `topics.rules[32].group` is \"g32\", one name too many: the most are 32"
    );
}

#[test]
fn variables_and_flags_are_blamed_by_name() {
    assert_eq!(
        refused(env("FANFARE__LIMITS__FRAGMENTS_MAX", "lots")),
        "FANFARE__LIMITS__FRAGMENTS_MAX: `limits.fragments_max` is \"lots\", \
         expected a whole number"
    );
    assert_eq!(
        refused(env("FANFARE__LIMITS", "5")),
        r#"FANFARE__LIMITS: `limits` is "5", expected the name of one of its settings"#
    );
    assert_eq!(
        refused(env("FANFARE__TOPICS__RULES", "x")),
        "FANFARE__TOPICS__RULES: `topics.rules` is \"x\", \
         expected a list of tables, which only a file can hold"
    );
    assert_eq!(
        refused(flag("--shards", "shards", "0x10")),
        r#"--shards: `shards` is "0x10", expected "auto" or a whole number"#
    );
}

#[test]
fn a_broken_file_is_shown_with_line_and_column() {
    let text = refused(file("[limits]\nfragments_max = = 1"));
    assert!(text.starts_with("fanfare.toml: TOML parse error at line 2, column 17"), "{text}");
    assert!(text.contains("2 | fragments_max = = 1"), "{text}");
    let twice = refused(file("shards = 1\nshards = 2"));
    assert!(twice.contains("line 2, column 1") && twice.contains("duplicate key"), "{twice}");
    for huge in ["shards = 99999999999999999999", "shards = 1e999"] {
        assert!(refused(file(huge)).starts_with("fanfare.toml: "));
    }
}

#[test]
fn a_fault_of_two_settings_is_blamed_on_the_one_that_was_set() {
    let expected = "`limits.outbound_bytes_max` is 1 MiB, less than \
                    `limits.message_bytes_max`, which is 2 MiB";
    let mut sources =
        file("limits = { http_body_bytes_max = '2 MiB', resume_bytes_max = '2 MiB' }");
    sources.env = env("FANFARE__LIMITS__MESSAGE_BYTES_MAX", "2 MiB").env;
    let refusal = refused(sources);
    assert_eq!(refusal, format!("FANFARE__LIMITS__MESSAGE_BYTES_MAX: {expected}"));
}

#[test]
fn a_number_out_of_bounds_is_refused_with_the_bound() {
    let cases = [
        ("shards = 0", "`shards` is 0, the least is 1"),
        ("shards = 65", "`shards` is 65, the most is 64"),
        ("limits.connections_max = 0", "`limits.connections_max` is 0, the least is 1"),
        ("limits.fragments_max = 0", "`limits.fragments_max` is 0, the least is 1"),
        ("limits.subscriptions_max = 0", "`limits.subscriptions_max` is 0, the least is 1"),
        ("limits.message_bytes_max = 0", "`limits.message_bytes_max` is 0 B, the least is 1 B"),
        (
            "limits.message_bytes_max = '1 GiB'",
            "`limits.message_bytes_max` is 1 GiB, the most is 64 MiB",
        ),
        ("limits.outbound_age_max = '2h'", "`limits.outbound_age_max` is 2h, the most is 1h"),
        (
            "limits.outbound_age_max = '900ms'",
            "`limits.outbound_age_max` is 900ms, the least is 1s",
        ),
        ("limits.cursors_max = 0", "`limits.cursors_max` is 0, the least is 1"),
        ("limits.write_stall_max = '0s'", "`limits.write_stall_max` is 0s, the least is 100ms"),
        ("limits.handshake_timeout = '2h'", "`limits.handshake_timeout` is 2h, the most is 1h"),
        ("websocket.ping_interval = '0s'", "`websocket.ping_interval` is 0s, the least is 1s"),
        ("topics.idle_ttl = '0s'", "`topics.idle_ttl` is 0s, the least is 1s"),
        ("topics.history.age = '0s'", "`topics.history.age` is 0s, the least is 100ms"),
        (
            "topics.rules = [{ filter = 'a', history.bytes = 0 }]",
            "`topics.rules[0].history.bytes` is 0 B, the least is 1 B",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(file(text)), format!("fanfare.toml: {expected}"));
    }
}

#[test]
fn a_list_that_is_too_long_is_refused_with_the_bound() {
    let hash = "0".repeat(64);
    let cases = [
        ("websocket.origins", 1024, "'https://a.b'".to_owned()),
        ("listen.trusted_proxies", 64, "'10.0.0.1'".to_owned()),
        ("auth.anonymous.subscribe", 1024, "'a'".to_owned()),
        ("auth.anonymous.publish", 1024, "'a'".to_owned()),
        ("auth.keys", 1024, "{ algorithm = 'HS256', file = 'x' }".to_owned()),
        ("auth.certificates", 1024, "{ name = 'x' }".to_owned()),
        ("auth.tokens", 1024, format!("{{ name = 'x', sha256 = '{hash}' }}")),
        ("topics.rules", 1024, "{ filter = 'a' }".to_owned()),
    ];
    for (key, most, element) in cases {
        let text = format!("{key} = [{}]", vec![element; most + 1].join(", "));
        let expected = format!("fanfare.toml: `{key}` is {}, the most is {most}", most + 1);
        assert_eq!(refused(file(&text)), expected);
    }
}

#[test]
fn settings_that_do_not_fit_each_other_are_refused_with_both() {
    let cases = [
        (
            "limits.outbound_bytes_max = 1024",
            "`limits.outbound_bytes_max` is 1 KiB, less than `limits.message_bytes_max`, \
             which is 64 KiB",
        ),
        (
            "limits.outbound_total_bytes_max = '64 KiB'",
            "`limits.outbound_total_bytes_max` is 64 KiB, less than `limits.outbound_bytes_max`, \
             which is 1 MiB",
        ),
        (
            "limits.http_body_bytes_max = 65535",
            "`limits.http_body_bytes_max` is 65535 B, less than `limits.message_bytes_max`, \
             which is 64 KiB",
        ),
        (
            "limits.resume_bytes_max = 1",
            "`limits.resume_bytes_max` is 1 B, less than `limits.message_bytes_max`, \
             which is 64 KiB",
        ),
        (
            "limits.mailbox_bytes_max = 1",
            "`limits.mailbox_bytes_max` is 1 B, less than `limits.message_bytes_max`, \
             which is 64 KiB",
        ),
        (
            "limits.filters_max = 129",
            "`limits.subscriptions_max` is 128, less than `limits.filters_max`, which is 129",
        ),
        (
            "shutdown.delay = '10s'\nshutdown.termination_grace = '70s'",
            "`shutdown.termination_grace` is 1m 10s, but `shutdown.delay`, `shutdown.spread`, \
             `shutdown.grace` and what it takes to write `shutdown.snapshot` are 1m 15s together, so \
             connections would be cut off: shorten these, or have whoever supervises the broker wait \
             longer",
        ),
        (
            "shutdown.snapshot = 'x'\nshutdown.termination_grace = '1m 5s'",
            "`shutdown.termination_grace` is 1m 5s, but `shutdown.delay`, `shutdown.spread`, \
             `shutdown.grace` and what it takes to write `shutdown.snapshot` are 1m 15s together, so \
             connections would be cut off: shorten these, or have whoever supervises the broker wait \
             longer",
        ),
        (
            "websocket.pong_timeout = '30s'",
            "`websocket.ping_interval` is 25s, less than `websocket.pong_timeout`, which is 30s",
        ),
        (
            "topics.history_bytes_max = '1 KiB'",
            "`topics.history.bytes` is 1 MiB, more than `topics.history_bytes_max`, \
             which is 1 KiB",
        ),
        (
            "topics.rules = [{ filter = 'a', history.bytes = '1 GiB' }]",
            "`topics.rules[0].history.bytes` is 1 GiB, more than `topics.history_bytes_max`, \
             which is 256 MiB",
        ),
        (
            "listen.admin = '127.0.0.1:7600'",
            "`listen.admin` is 127.0.0.1:7600, and so is `listen.public`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(file(text)), format!("fanfare.toml: {expected}"));
    }
}

#[test]
fn other_machines_are_not_served_unless_that_is_said() {
    let open = [
        "0.0.0.0:7600",
        "[::]:7600",
        "192.168.1.7:7600",
        "203.0.113.9:0",
        "[2001:db8::1]:7600",
        "[fe80::1]:7600",
        "[::ffff:10.0.0.1]:7600",
    ];
    let keys = [
        ("listen.public", "--listen", ""),
        ("listen.ingress", "--ingress", ", demand certificates of clients by `tls.client_ca`"),
        ("listen.admin", "--admin", ", demand certificates of clients by `tls.client_ca`"),
    ];
    for (key, name, other_way) in keys {
        for address in open {
            let mut sources = flag(name, key, address);
            assert_eq!(
                refused(sources.clone()),
                format!(
                    "{name}: `{key}` is {address}, which other machines can reach without proving \
                     who they are: listen on 127.0.0.1{other_way} or, to allow it, set \
                     `insecure = true` or pass --insecure"
                )
            );
            sources.env = env("FANFARE__INSECURE", "true").env;
            load(sources).expect("allowed by insecure");
        }
        for address in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            load(flag(name, key, address)).expect(address);
        }
    }
}

#[test]
fn two_listeners_may_both_let_the_system_choose_a_port() {
    load(file("[listen]\npublic = '127.0.0.1:0'\ningress = '127.0.0.1:0'\nadmin = 'off'"))
        .expect("port 0 is another port each time");
}
