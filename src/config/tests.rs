use super::keys::{Effect, Source};
use super::*;
use crate::model::{DigestAlgorithm, Packing, ServerId};

/// Asks a machine with these files, which knows its own name.
fn with_files<T>(files: &[(&str, &str)], ask: impl FnOnce(&Machine<'_>) -> T) -> T {
    let read = |file: &Path| match files.iter().find(|(name, _)| Path::new(name) == file) {
        Some((_, text)) => Ok(text.as_bytes().to_vec()),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    let resolve = |host: &str| match host {
        "localhost" => vec![IpAddr::from([127, 0, 0, 1])],
        _ => Vec::new(),
    };
    ask(&Machine { read: &read, resolve: &resolve })
}

/// The first file is `zoo.cfg`.
fn load(files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    with_files(files, |machine| Config::from_file(Path::new(files[0].0), machine))
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    load(&[("zoo.cfg", text)])
}

fn conclude(config: &mut Config) -> Result<(), ConfigError> {
    with_files(&[], |machine| config.conclude(machine))
}

#[test]
fn our_own_file_parses_without_a_warning() {
    let config = parse(include_str!("../../conf/zoo.cfg")).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.ports.client, Some(2181));
}

#[test]
fn a_wrong_value_names_file_line_and_key() {
    let error = parse("dataDir=/d\nclientPort=2181\ntickTime=soon\n").unwrap_err().to_string();
    assert_eq!(error, "zoo.cfg:3: tickTime=\"soon\": expected a whole number from 1 to 2147483647");
    let error = parse("dataDir=/d\nclientPort=2181\nstandaloneEnabled=maybe\n").unwrap_err().to_string();
    assert!(error.starts_with("zoo.cfg:3: standaloneEnabled"), "{error}");
}

#[test]
fn snapshots_are_compressed_by_javas_names() {
    let parsed = |value: &str| {
        let line = format!("dataDir=/d\nclientPort=2181\nsnapshot.compression.method={value}\n");
        let mut config = parse(&line).unwrap();
        conclude(&mut config).unwrap();
        (config.storage.packing, config.warnings.len())
    };
    assert_eq!(parsed("gz"), (Packing::Gzip, 0));
    assert_eq!(parsed("SNAPPY"), (Packing::Snappy, 0));
    assert_eq!(parsed(""), (Packing::Plain, 0));
    assert_eq!(parsed("lz4"), (Packing::Plain, 1));
}

#[test]
fn the_digest_scheme_hashes_as_told_in_whichever_order() {
    let digest_auth =
        |lines: &str| parse(&format!("dataDir=/d\nclientPort=2181\n{lines}")).unwrap().auth.digest();
    let algorithm = "DigestAuthenticationProvider.digestAlg=SHA-256\n";
    let on = "DigestAuthenticationProvider.enabled=true\n";
    let off = "DigestAuthenticationProvider.enabled=false\n";
    assert_eq!(digest_auth(""), Some(DigestAlgorithm::Sha1));
    assert_eq!(digest_auth(&format!("{algorithm}{on}")), Some(DigestAlgorithm::Sha256));
    assert_eq!(digest_auth(&format!("{on}{algorithm}")), Some(DigestAlgorithm::Sha256));
    assert_eq!(digest_auth(&format!("{algorithm}{off}")), None);
    assert_eq!(digest_auth(&format!("{off}{algorithm}")), None);
    assert!(parse("dataDir=/d\nclientPort=2181\nDigestAuthenticationProvider.digestAlg=ROT13\n").is_err());
}

#[test]
fn isro_is_answered_where_read_only_mode_is_on() {
    let allowed = |flags: &str| {
        let mut config = parse("dataDir=/d\nclientPort=2181\n4lw.commands.whitelist=stat\n").unwrap();
        config.apply_jvm_flags("SERVER_JVMFLAGS", flags).unwrap();
        config.ports.allows_word("isro", config.quorum.read_only_mode)
    };
    assert!(!allowed(""));
    assert!(allowed("-Dreadonlymode.enabled=true"));
}

#[test]
fn a_provider_that_is_not_loaded_is_a_warning() {
    let class = |name: &str| format!("dataDir=/d\nclientPort=2181\nauthProvider.1={name}\n");
    let built_in = |name: &str| parse(&class(&format!("org.apache.zookeeper.server.auth.{name}"))).unwrap();
    for name in [
        "DigestAuthenticationProvider",
        "EnsembleAuthenticationProvider",
        "SASLAuthenticationProvider",
        "X509AuthenticationProvider",
    ] {
        assert_eq!(built_in(name).warnings, [], "{name}");
    }
    for mut config in [built_in("NoSuchProvider"), parse(&class("com.example.Ours")).unwrap()] {
        conclude(&mut config).unwrap();
        assert_eq!(config.warnings.len(), 1);
        assert_eq!(config.warnings[0].place, "zoo.cfg:3");
        assert!(config.warnings[0].text.contains("is not loaded"), "{:?}", config.warnings);
    }
}

#[test]
fn the_scheme_ensemble_has_the_names_that_are_configured() {
    let names =
        |lines: &str| parse(&format!("dataDir=/d\nclientPort=2181\n{lines}")).unwrap().auth.ensemble_names();
    let on = "authProvider.1=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider\n";
    let named = "ensembleAuthName=foo,bar, baz \n";
    assert_eq!(names(named), None);
    assert_eq!(names(on), Some(vec![]));
    assert_eq!(names(&format!("{on}{named}")), Some(["foo", "bar", "baz"].map(String::from).into()));
}

#[test]
fn who_may_log_in_stands_in_the_file_that_a_flag_names() {
    let read = |text: &str, flags: &str| {
        let mut config = parse("dataDir=/d\nclientPort=1\nsuperUser.1=bob\n").unwrap();
        let login = format!("-Djava.security.auth.login.config=/jaas.conf {flags}");
        config.apply_jvm_flags("SERVER_JVMFLAGS", &login).unwrap();
        let concluded = with_files(&[("/jaas.conf", text)], |machine| config.conclude(machine));
        concluded.map(|()| config.sasl)
    };
    let text = "Server { x.DigestLoginModule required user_super=\"old\"; };";
    let password =
        |flags: &str| read(text, flags).unwrap().accounts.unwrap().password("super").map(String::from);
    assert_eq!(password("").as_deref(), Some("old"));
    assert_eq!(password("-Dzookeeper.SASLAuthenticationProvider.superPassword=new").as_deref(), Some("new"));
    assert_eq!(read(text, "-Dzookeeper.sasl.serverconfig=Zoo").unwrap().accounts, None, "another section");
    assert_eq!(read(text, "").unwrap().super_users, ["bob"]);
    let wrong = read("Server {", "").unwrap_err().to_string();
    assert_eq!(wrong, "/jaas.conf: line 1: expected a login module or }");
}

#[test]
fn an_unknown_key_is_a_warning() {
    let config = parse("dataDir=/d\nclientPort=2181\nfrobnicate=1\n").unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert_eq!(config.warnings[0].place, "zoo.cfg:3");
}

#[test]
fn what_is_missing_is_named() {
    assert!(parse("clientPort=2181\n").unwrap_err().to_string().contains("dataDir is missing"));
    assert!(parse("dataDir=/d\n").unwrap_err().to_string().contains("clientPort is missing"));
}

#[test]
fn session_timeouts_follow_the_tick_unless_set() {
    let config = parse("dataDir=/d\nclientPort=1\ntickTime=500\nmaxSessionTimeout=70000\n").unwrap();
    assert_eq!((config.sessions.min_timeout_ms(), config.sessions.max_timeout_ms()), (1000, 70_000));
}

#[test]
fn jvm_flags_count_like_lines_of_the_file() {
    let mut config = parse("dataDir=/d\nclientPort=1\n").unwrap();
    let flags = "-Xmx1g -Dzookeeper.extendedTypesEnabled=true -Dznode.container.checkIntervalMs=100";
    config.apply_jvm_flags("SERVER_JVMFLAGS", flags).unwrap();
    assert!(config.znodes.extended_types);
    assert_eq!(config.znodes.container_check_ms, 100);
    let wrong = config.apply_jvm_flags("SERVER_JVMFLAGS", "-Djute.maxbuffer=big").unwrap_err();
    assert!(wrong.to_string().starts_with("SERVER_JVMFLAGS: jute.maxbuffer"), "{wrong}");
}

#[test]
fn the_file_wins_over_a_flag_and_the_jvms_own_flags_are_not_ours() {
    let mut config = parse("dataDir=/d\nclientPort=1\nsnapCount=77\n").unwrap();
    config
        .apply_jvm_flags("f", "-Dzookeeper.snapCount=5 -Djute.maxbuffer=0x9fffff -Dfile.encoding=UTF-8")
        .unwrap();
    assert_eq!(
        (config.storage.snap_count, config.limits.max_buffer, config.warnings.len()),
        (77, 0x9f_ffff, 0)
    );
}

/// Lines of a file with the key in line 3.
fn with(line: &str) -> Result<Config, ConfigError> {
    parse(&format!("dataDir=/d\nclientPort=2181\n{line}\n"))
}

fn texts(told: &[Warning]) -> Vec<&str> {
    told.iter().map(|warning| &warning.text[..]).collect()
}

#[test]
fn lines_that_apache_does_not_read_have_no_effect() {
    for (line, has_it) in [
        ("jute.maxbuffer=7", "the flag -Djute.maxbuffer=… has it"),
        ("readonlymode.enabled=true", "the flag -Dreadonlymode.enabled=… has it"),
        ("znode.container.checkIntervalMs=7", "the flag -Dznode.container.checkIntervalMs=… has it"),
        ("java.security.auth.login.config=/no/such", "the flag -Djava.security.auth.login.config=… has it"),
        ("zookeeper.skipACL=yes", "the line skipACL=… has it, or the flag -Dzookeeper.skipACL=…"),
        (
            "zookeeper.DigestAuthenticationProvider.superDigest=super:x",
            "the line DigestAuthenticationProvider.superDigest=… has it, or the flag",
        ),
        ("zookeeper.4lw.commands.whitelist=*", "the line 4lw.commands.whitelist=… has it, or the flag"),
        ("zookeeper.jute.maxbuffer=7", "the flag -Djute.maxbuffer=… has it"),
        ("zookeeper.tickTime=7", "the line tickTime=… has it"),
        ("zookeeper.audit.enable=true", "the line audit.enable=… has it, or the flag"),
    ] {
        let config = with(line).unwrap();
        let [warning] = &config.warnings[..] else { panic!("{line}: {:?}", config.warnings) };
        assert!(warning.place == "zoo.cfg:3" && warning.text.contains(has_it), "{warning:?}");
        let plain = parse("dataDir=/d\nclientPort=2181\n").unwrap();
        let effects = |config: &Config| {
            let config = Config { warnings: Vec::new(), ..config.clone() };
            format!("{config:?}")
        };
        assert_eq!(effects(&config), effects(&plain), "{line}");
    }
}

#[test]
fn flags_that_apache_does_not_read_have_no_effect() {
    for (flag, told) in [
        ("-Dzookeeper.jute.maxbuffer=7", Some("the flag -Djute.maxbuffer=… has it")),
        ("-Djute.maxbuffer.extrasize=7", Some("the flag -Dzookeeper.jute.maxbuffer.extrasize=… has it")),
        ("-Dzookeeper.reconfigEnabled=true", Some("the line reconfigEnabled=… of the file has it")),
        ("-Dzookeeper.skipALC=yes", Some("zookeeper.skipALC is not known")),
        ("-Dzookeeper.server.realm=EXAMPLE.COM", None),
        ("-Dfile.encoding=UTF-8", None),
    ] {
        let mut config = parse("dataDir=/d\nclientPort=1\n").unwrap();
        config.apply_jvm_flags("SERVER_JVMFLAGS", flag).unwrap();
        match (told, &texts(&config.warnings)[..]) {
            (Some(told), [text]) => assert!(text.contains(told), "{text}"),
            (told, found) => assert!(told.is_none() && found.is_empty(), "{flag}: {found:?}"),
        }
        let usual = Limits::default().max_record();
        assert!(config.limits.max_record() == usual && !config.quorum.reconfig);
    }
    let mut config = parse("dataDir=/d\nclientPort=1\njute.maxbuffer=5\n").unwrap();
    config.apply_jvm_flags("SERVER_JVMFLAGS", "-Djute.maxbuffer=7").unwrap();
    assert_eq!(config.limits.max_buffer, 7, "the dead line does not count before the flag");
}

/// Values that work where a key is taken at all.
fn value_for(key: &str) -> &str {
    match key {
        "server.N" => "a:1:2",
        "group.N" => "1",
        "electionAlg" => "3",
        "peerType" => "participant",
        "ssl.clientAuth" => "need",
        "ssl.protocol" | "ssl.enabledProtocols" => "TLSv1.3",
        "ssl.keyStore.type" | "ssl.trustStore.type" => "JKS",
        "DigestAuthenticationProvider.digestAlg" => "SHA1",
        "learners.allow" => "*",
        "peers.checkAddress" => "false",
        "snapshotSizeFactor" => "1",
        "authProvider.N" => "org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        key if ["standaloneEnabled", "reconfigEnabled", "quorumListenOnAllIPs", "multiAddress.enabled"]
            .contains(&key) =>
        {
            "true"
        }
        _ => "9",
    }
}

/// The table as it takes a key in the place where Apache reads it.
fn taken(key: keys::Key, value: &str) -> Result<Config, ConfigError> {
    let mut config = parse("dataDir=/d\nclientPort=2181\n").unwrap();
    config.tls.port = Some(2281);
    let name = key.name.strip_suffix('N').map_or(key.name.into(), |start| format!("{start}1"));
    let name = if key.name.ends_with(".N") { name } else { key.name.into() };
    match key.source {
        Source::Flag => config.take_flag("zoo.cfg:3", &name, value)?,
        Source::Property | Source::File => config.take_line("zoo.cfg:3", &name, value)?,
    }
    if let Some(unmet) = config.met.unmet.first().cloned() {
        let Unmet { place, key, value, why } = unmet;
        return Err(ConfigError::Value { place, key, value, expected: Expected::Less(why) });
    }
    Ok(config)
}

#[test]
fn every_key_of_the_table_does_what_its_row_says() {
    for (name, ..) in keys::KEYS {
        let key = keys::find(name).unwrap();
        let asking = |asks| match asks {
            keys::Asks::True | keys::Asks::NotFalse => "true",
            keys::Asks::Always | keys::Asks::Positive | keys::Asks::Unless(_) => "9",
        };
        let silent = |asks| match asks {
            keys::Asks::True | keys::Asks::NotFalse => "false",
            keys::Asks::Positive => "0",
            keys::Asks::Unless(usual) => usual,
            keys::Asks::Always => "",
        };
        match key.effect {
            Effect::Works => {
                let config = taken(key, value_for(name)).unwrap();
                assert_eq!((config.warnings, config.notes), (vec![], vec![]), "{name}");
            }
            Effect::Protects(asks, why) | Effect::ProtectsTls(asks, why) => {
                let error = taken(key, asking(asks)).unwrap_err().to_string();
                assert!(error.starts_with(&format!("zoo.cfg:3: {name}=")) && error.ends_with(why), "{error}");
                let config = taken(key, silent(asks)).unwrap();
                assert_eq!((config.warnings, config.notes), (vec![], vec![]), "{name}");
            }
            Effect::Adds(asks, why) => {
                let config = taken(key, asking(asks)).unwrap();
                assert!(texts(&config.warnings)[..].iter().all(|text| text.ends_with(why)), "{name}");
                assert_eq!((config.warnings.len(), config.notes.len()), (1, 0), "{name}");
                let config = taken(key, silent(asks)).unwrap();
                assert_eq!((config.warnings, config.notes), (vec![], vec![]), "{name}");
            }
            Effect::Harmless(why) => {
                let config = taken(key, "9").unwrap();
                assert!(config.notes[0].text.ends_with(why), "{name}");
                assert_eq!((config.warnings.len(), config.notes.len()), (0, 1), "{name}");
            }
        }
    }
}

#[test]
fn no_key_stands_in_the_table_twice() {
    let mut names: Vec<_> = keys::KEYS.iter().map(|(name, ..)| name).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// Keys that Apache 3.9.5 reads or documents, listed apart from the table so that none gets lost in it.
#[test]
fn every_key_of_apache_stands_in_the_table() {
    for key in include_str!("keys.txt").split_whitespace() {
        assert!(keys::find(key).is_some(), "{key}");
    }
}

#[test]
fn the_port_of_an_admin_server_that_is_off_is_no_matter() {
    let warned = |lines: &str| {
        let mut config = with(lines).unwrap();
        conclude(&mut config).unwrap();
        config.warnings.len()
    };
    assert_eq!(warned("admin.serverPort=8080"), 1);
    assert_eq!(warned("admin.enableServer=false\nadmin.serverPort=8080"), 0);
    assert_eq!(warned("admin.enableServer=true"), 1);
}

#[test]
fn a_protection_that_is_missing_stops_the_start_by_a_flag_too() {
    for flag in ["-Dzookeeper.audit.enable=true", "-Dzookeeper.sslQuorum=true", "-Dzookeeper.fips-mode=true"]
    {
        let mut config = parse("dataDir=/d\nclientPort=1\n").unwrap();
        let error = config.apply_jvm_flags("SERVER_JVMFLAGS", flag).unwrap_err().to_string();
        assert!(error.starts_with("SERVER_JVMFLAGS: "), "{error}");
    }
    let mut config = with("audit.enable=false").unwrap();
    config.apply_jvm_flags("SERVER_JVMFLAGS", "-Dzookeeper.audit.enable=true").unwrap();
    assert_eq!(config.warnings, [], "the file wins");
    assert!(with("audit.enable=true\naudit.enable=false").is_ok(), "the last line wins");
}

#[test]
fn what_is_enforced_can_be_proved() {
    let on = "enforce.auth.enabled=true";
    let sasl = "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider";
    let concluded = |lines: &[&str]| {
        let mut config = with(&lines.join("\n")).unwrap();
        conclude(&mut config).map(|()| config.auth.enforced_schemes()).map_err(|error| error.to_string())
    };
    assert_eq!(concluded(&[on, "enforce.auth.schemes=digest"]).unwrap(), ["digest"]);
    assert_eq!(concluded(&["enforce.auth.schemes=digits"]).unwrap(), [""; 0], "not enforced");
    assert_eq!(concluded(&[on, "enforce.auth.schemes=sasl,ip", sasl]).unwrap(), ["sasl", "ip"]);
    assert_eq!(concluded(&["sessionRequireClientSASLAuth=true", sasl]).unwrap(), ["sasl"]);
    let both = [on, "enforce.auth.schemes=digest", "sessionRequireClientSASLAuth=true", sasl];
    assert_eq!(concluded(&both).unwrap(), ["sasl"], "digest does not do, as in Java");
    let wrong = |lines: &[&str], said: &str| {
        let error = concluded(lines).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    };
    wrong(&[on], "zoo.cfg:3: enforce.auth.enabled=\"true\": expected enforce.auth.schemes");
    wrong(&[on, "enforce.auth.schemes="], "zoo.cfg:3: enforce.auth.enabled");
    wrong(&[on, "enforce.auth.schemes=digest,digits"], "zoo.cfg:4: enforce.auth.schemes=\"digest,digits\"");
    wrong(&[on, "enforce.auth.schemes=sasl"], "zoo.cfg:4: enforce.auth.schemes");
    let off = "DigestAuthenticationProvider.enabled=false";
    wrong(&[on, "enforce.auth.schemes=digest", off], "zoo.cfg:4: enforce.auth.schemes");
    wrong(&["sessionRequireClientSASLAuth=true"], "zoo.cfg:3: sessionRequireClientSASLAuth");
}

#[test]
fn values_that_apache_takes_are_taken() {
    let config = with("maxClientCnxns=-1\nmaxCnxns=-1\nautopurge.purgeInterval=-1\npreAllocSize=-1").unwrap();
    assert_eq!((config.ports.per_address, config.ports.connections), (0, 0));
    assert_eq!((config.storage.purge_interval_hours, config.storage.prealloc_kb), (0, 0));
    assert_eq!(with("globalOutstandingLimit=0").unwrap().limits.outstanding, 1);
    assert_eq!(with("clientPortAddress=").unwrap().ports.address.as_deref(), Some("127.0.0.1"));
    let lines = "dataDir=/d\rclientPort=2181\rtickTime=7\r";
    assert_eq!(parse(lines).unwrap().sessions.tick_ms, 7);
    let mut config = parse("dataDir=/d\nclientPort=1\n").unwrap();
    config.apply_jvm_flags("f", "-Djute.maxbuffer=0").unwrap();
    assert_eq!(config.limits.max_buffer, 0);
}

#[test]
fn what_is_unprintable_is_told_in_escapes() {
    let config = with("ki\u{0}ll=1").unwrap();
    assert_eq!(texts(&config.warnings), ["ki\\0ll is not known and has no effect"]);
}

#[test]
fn a_mark_before_the_text_is_no_part_of_it() {
    assert_eq!(parse("\u{feff}dataDir=/d\nclientPort=2181\n").unwrap().storage.dir, Path::new("/d"));
}

#[test]
fn one_voter_has_no_observers_unless_it_is_an_ensemble() {
    let lines = "initLimit=5\nsyncLimit=5\nserver.1=a:1:2;2181\nserver.2=b:1:2:observer";
    let read = |more: &str| load(&[("zoo.cfg", &format!("dataDir=/d\n{lines}\n{more}\n")), ("/d/myid", "1")]);
    assert!(read("").unwrap_err().to_string().contains("standaloneEnabled=false"));
    assert!(read("standaloneEnabled=false").unwrap().quorum.is_distributed());
}

#[test]
fn client_addresses_of_one_server_agree_by_what_they_mean() {
    let read = |address: &str, own: &str| {
        let line = format!("clientPortAddress={address}\nserver.1=localhost:2888:3888;{own}");
        with(&line).map(|config| config.ports.address)
    };
    assert_eq!(read("localhost", "127.0.0.1:2181").unwrap().as_deref(), Some("127.0.0.1"));
    assert_eq!(read("127.0.0.1", "localhost:2181").unwrap().as_deref(), Some("localhost"));
    for any in ["::", "0.0.0.0", "*", "[::]"] {
        assert_eq!(read(any, "2181").unwrap(), None, "{any}");
        assert_eq!(read(any, "127.0.0.1:2181").unwrap().as_deref(), Some("127.0.0.1"), "{any}");
        assert!(read(any, "2182").is_err(), "{any}");
    }
    assert_eq!(read("::", "[::]:2181").unwrap(), None);
    assert!(read("127.0.0.2", "127.0.0.1:2181").is_err());
    assert!(read("127.0.0.1", "2181").is_err(), "as Java");
}

#[test]
fn a_peer_type_that_its_line_denies_is_told() {
    let warned = |more: &str| {
        ensemble_of(1, &format!("clientPort=2181\ninitLimit=5\nsyncLimit=5\n{more}")).unwrap().warnings.len()
    };
    assert_eq!((warned(""), warned("peerType=participant\n"), warned("peerType=observer\n")), (0, 0, 1));
    assert!(with("peerType=king").unwrap_err().to_string().contains("participant or observer"));
}

#[test]
fn the_client_port_may_stand_in_the_server_line() {
    let config = parse("dataDir=/d\nserver.1=localhost:2888:3888;127.0.0.1:2182\n").unwrap();
    assert_eq!((config.ports.client, config.ports.address.as_deref()), (Some(2182), Some("127.0.0.1")));
    assert!(parse("dataDir=/d\nserver.1=localhost:2888:3888;x\n").is_err());
}

#[test]
fn the_shortest_timeout_is_not_longer_than_the_longest() {
    let error = parse("dataDir=/d\nclientPort=1\nminSessionTimeout=9\nmaxSessionTimeout=8\n").unwrap_err();
    assert!(error.to_string().contains("minSessionTimeout"), "{error}");
}

const THREE: &str = "server.1=a:2888:3888\nserver.2=b:2888:3888;2182\nserver.3=c:2888:3888:observer\n";

fn ensemble_of(my_id: i64, more: &str) -> Result<Config, ConfigError> {
    load(&[("zoo.cfg", &format!("dataDir=/d\n{THREE}{more}")), ("/d/myid", &format!("{my_id}\n"))])
}

#[test]
fn one_server_is_alone_and_several_are_an_ensemble() {
    let one = "dataDir=/d\nclientPort=1\nserver.1=localhost:2888:3888\n";
    assert!(!parse(one).unwrap().quorum.is_distributed());
    let config = ensemble_of(1, "clientPort=2181\ninitLimit=10\nsyncLimit=5\n").unwrap();
    assert!(config.quorum.is_distributed());
    assert_eq!((config.quorum.my_id, config.ports.client), (Some(ServerId(1)), Some(2181)));
    let config = ensemble_of(2, "initLimit=10\nsyncLimit=5\n").unwrap();
    assert_eq!(config.ports.client, Some(2182), "the own line names it");
}

#[test]
fn a_server_alone_does_not_mind_the_number_in_myid() {
    let files = [("zoo.cfg", "dataDir=/d\nclientPort=2181\n"), ("/d/myid", "-1\n")];
    assert_eq!(load(&files).unwrap().quorum.my_id, None);
}

#[test]
fn what_an_ensemble_needs_is_named() {
    for (id, more, wanted) in [
        (1, "clientPort=1\nsyncLimit=5\n", "initLimit is missing"),
        (1, "clientPort=1\ninitLimit=5\n", "syncLimit is missing"),
        (9, "clientPort=1\ninitLimit=5\nsyncLimit=5\n", "there is no line server.9"),
        (256, "clientPort=1\n", "\"256\": expected an id from 0 to 255"),
        (2, "clientPort=1\ninitLimit=5\nsyncLimit=5\n", "the line of server.2 says"),
        (1, "clientPort=1\nserver.4=x\n", "server.4=\"x\""),
        (1, "clientPort=1\nelectionAlg=0\n", "electionAlg"),
    ] {
        let error = ensemble_of(id, more).unwrap_err().to_string();
        assert!(error.contains(wanted), "{more}: {error}");
    }
    assert!(parse("dataDir=/d\nclientPort=1\nserver.1=nonsense\n").is_err());
    let no_id = format!("dataDir=/nowhere\nclientPort=1\ninitLimit=5\nsyncLimit=5\n{THREE}");
    assert!(parse(&no_id).unwrap_err().to_string().contains("/nowhere/myid is missing"));
}

#[test]
fn a_dynamic_file_has_the_servers_and_its_version_in_its_name() {
    let text = "dataDir=/d\ninitLimit=5\nsyncLimit=5\ndynamicConfigFile=/c/zoo.cfg.dynamic.10000002a\n";
    let next = format!("{THREE}version=10000002b");
    let read = |more: &str, dynamic: &str| {
        let text = format!("{text}{more}");
        let next = ("/c/zoo.cfg.dynamic.next", &next[..]);
        load(&[("/c/zoo.cfg", &text), ("/d/myid", "2"), ("/c/zoo.cfg.dynamic.10000002a", dynamic), next])
    };
    let config = read("", THREE).unwrap();
    assert_eq!(config.quorum.ensemble.unwrap().version(), 0x1_0000_002a);
    assert_eq!(config.quorum.proposed.unwrap().version(), 0x1_0000_002b);
    assert!(matches!(read("server.1=a:1:2\n", THREE), Err(ConfigError::ServersTwice { .. })));
    assert!(matches!(read("", &next), Err(ConfigError::VersionInFile { .. })));
}

#[test]
fn a_data_directory_that_is_a_file_is_named_as_what_it_is() {
    let read = |file: &Path| match file.to_str() {
        Some("zoo.cfg") => Ok(b"clientPort=2181\ndataDir=/tmp/afile\n".to_vec()),
        Some("/tmp/afile/myid") => Err(io::ErrorKind::NotADirectory.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let machine = Machine { read: &read, resolve: &|_| Vec::new() };
    let error = Config::from_file(Path::new("zoo.cfg"), &machine).unwrap_err();
    assert_eq!(error.to_string(), "zoo.cfg:2: dataDir=/tmp/afile is a file, not a directory");
}

#[test]
fn a_wrong_value_is_told_with_what_is_expected() {
    for (line, said) in [
        ("clientPort=99999", "clientPort=\"99999\": expected a whole number from 0 to 65535"),
        ("server.x=a:1:2", "server.x: expected server.<id> with a number, e.g. server.1"),
        ("server.1=a:1:99999", "server.1=\"a:1:99999\": expected ports from 0 to 65535, not 99999"),
        ("dataDir=", "dataDir=\"\": expected a path"),
        ("standaloneEnabled=yes", "standaloneEnabled=\"yes\": expected true or false"),
        ("ssl.clientAuth=perhaps", "ssl.clientAuth=\"perhaps\": expected none, want or need"),
        ("electionAlg=1", "electionAlg=\"1\": expected 3, the only one that exists"),
    ] {
        assert_eq!(with(line).unwrap_err().to_string(), format!("zoo.cfg:3: {said}"));
    }
}
