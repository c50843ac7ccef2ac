use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("zoo.cfg"), text)
}

#[test]
fn our_own_file_parses_without_a_warning() {
    let config = Config::parse(Path::new("conf/zoo.cfg"), include_str!("../../conf/zoo.cfg")).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.client_port, Some(2181));
}

#[test]
fn a_wrong_value_names_file_line_and_key() {
    let error = parse("dataDir=/d\nclientPort=2181\ntickTime=soon\n").unwrap_err().to_string();
    assert_eq!(error, "zoo.cfg:3: tickTime=\"soon\": a whole number from 1 to 2147483647 is needed");
    let error = parse("dataDir=/d\nclientPort=2181\nstandaloneEnabled=maybe\n").unwrap_err().to_string();
    assert!(error.starts_with("zoo.cfg:3: standaloneEnabled"), "{error}");
}

#[test]
fn the_digest_scheme_hashes_as_told_in_whichever_order() {
    let digest_auth =
        |lines: &str| parse(&format!("dataDir=/d\nclientPort=2181\n{lines}")).unwrap().digest_auth;
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
    let allowed = |lines: &str| {
        parse(&format!("dataDir=/d\nclientPort=2181\n4lw.commands.whitelist=stat\n{lines}"))
            .unwrap()
            .word_is_allowed("isro")
    };
    assert!(!allowed(""));
    assert!(allowed("readonlymode.enabled=true\n"));
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
    for config in [built_in("NoSuchProvider"), parse(&class("com.example.Ours")).unwrap()] {
        assert_eq!(config.warnings.len(), 1);
        assert_eq!(config.warnings[0].place, "zoo.cfg:3");
        assert!(config.warnings[0].text.contains("is not loaded"), "{:?}", config.warnings);
    }
}

#[test]
fn the_scheme_ensemble_has_the_names_that_are_configured() {
    let names =
        |lines: &str| parse(&format!("dataDir=/d\nclientPort=2181\n{lines}")).unwrap().ensemble_names();
    let on = "authProvider.1=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider\n";
    let named = "ensembleAuthName=foo,bar, baz \n";
    assert_eq!(names(named), None);
    assert_eq!(names(on), Some(vec![]));
    assert_eq!(names(&format!("{on}{named}")), Some(["foo", "bar", "baz"].map(String::from).into()));
}

#[test]
fn who_may_log_in_stands_in_the_file_that_a_flag_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jaas.conf");
    let read = |text: &str, flags: &str| {
        std::fs::write(&file, text).unwrap();
        let mut config = parse("dataDir=/d\nclientPort=1\nsuperUser.1=bob\n").unwrap();
        let login = format!("-Djava.security.auth.login.config={} {flags}", file.display());
        config.apply_jvm_flags("SERVER_JVMFLAGS", &login).unwrap();
        config.conclude().map(|()| config.sasl)
    };
    let text = "Server { x.DigestLoginModule required user_super=\"old\"; };";
    let password =
        |flags: &str| read(text, flags).unwrap().accounts.unwrap().password("super").map(String::from);
    assert_eq!(password("").as_deref(), Some("old"));
    assert_eq!(password("-Dzookeeper.SASLAuthenticationProvider.superPassword=new").as_deref(), Some("new"));
    assert_eq!(read(text, "-Dzookeeper.sasl.serverconfig=Zoo").unwrap().accounts, None, "another section");
    assert_eq!(read(text, "").unwrap().super_users, ["bob"]);
    let wrong = read("Server {", "").unwrap_err().to_string();
    assert!(wrong.starts_with(&format!("{}: line 1: ", file.display())), "{wrong}");
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
    assert_eq!((config.min_session_timeout(), config.max_session_timeout()), (1000, 70_000));
}

#[test]
fn jvm_flags_count_like_lines_of_the_file() {
    let mut config = parse("dataDir=/d\nclientPort=1\n").unwrap();
    let flags = "-Xmx1g -Dzookeeper.extendedTypesEnabled=true -Dznode.container.checkIntervalMs=100";
    config.apply_jvm_flags("SERVER_JVMFLAGS", flags).unwrap();
    assert!(config.extended_types);
    assert_eq!(config.container_check_interval_ms, 100);
    let wrong = config.apply_jvm_flags("SERVER_JVMFLAGS", "-Djute.maxbuffer=big").unwrap_err();
    assert!(wrong.to_string().starts_with("SERVER_JVMFLAGS: jute.maxbuffer"), "{wrong}");
}

#[test]
fn the_file_wins_over_a_flag_and_the_jvms_own_flags_are_not_ours() {
    let mut config = parse("dataDir=/d\nclientPort=1\nsnapCount=77\njute.maxbuffer=0x9fffff\n").unwrap();
    config.apply_jvm_flags("f", "-Dzookeeper.snapCount=5 -Dfile.encoding=UTF-8").unwrap();
    assert_eq!((config.snap_count, config.max_buffer, config.warnings.len()), (77, 0x9f_ffff, 0));
}

#[test]
fn the_client_port_may_stand_in_the_server_line() {
    let config = parse("dataDir=/d\nserver.1=localhost:2888:3888;127.0.0.1:2182\n").unwrap();
    assert_eq!((config.client_port, config.client_port_address.as_deref()), (Some(2182), Some("127.0.0.1")));
    assert!(parse("dataDir=/d\nserver.1=localhost:2888:3888;x\n").is_err());
}

#[test]
fn the_shortest_timeout_is_not_longer_than_the_longest() {
    let error = parse("dataDir=/d\nclientPort=1\nminSessionTimeout=9\nmaxSessionTimeout=8\n").unwrap_err();
    assert!(error.to_string().contains("minSessionTimeout"), "{error}");
}

const THREE: &str = "server.1=a:2888:3888\nserver.2=b:2888:3888;2182\nserver.3=c:2888:3888:observer\n";

fn ensemble_of(my_id: i64, more: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("myid"), format!("{my_id}\n")).unwrap();
    let file = dir.path().join("zoo.cfg");
    let text = format!("dataDir={}\n{THREE}{more}", dir.path().display());
    std::fs::write(&file, text).unwrap();
    Config::from_file(&file)
}

#[test]
fn one_server_is_alone_and_several_are_an_ensemble() {
    let one = "dataDir=/d\nclientPort=1\nserver.1=localhost:2888:3888\n";
    assert!(!parse(one).unwrap().is_distributed());
    let config = ensemble_of(1, "clientPort=2181\ninitLimit=10\nsyncLimit=5\n").unwrap();
    assert!(config.is_distributed());
    assert_eq!((config.my_id, config.client_port), (Some(ServerId(1)), Some(2181)));
    let config = ensemble_of(2, "initLimit=10\nsyncLimit=5\n").unwrap();
    assert_eq!(config.client_port, Some(2182), "the own line names it");
}

#[test]
fn a_server_alone_does_not_mind_the_number_in_myid() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("myid"), "-1\n").unwrap();
    let file = dir.path().join("zoo.cfg");
    std::fs::write(&file, format!("dataDir={}\nclientPort=2181\n", dir.path().display())).unwrap();
    assert_eq!(Config::from_file(&file).unwrap().my_id, None);
}

#[test]
fn what_an_ensemble_needs_is_named() {
    for (id, more, wanted) in [
        (1, "clientPort=1\nsyncLimit=5\n", "initLimit is missing"),
        (1, "clientPort=1\ninitLimit=5\n", "syncLimit is missing"),
        (9, "clientPort=1\ninitLimit=5\nsyncLimit=5\n", "there is no line server.9"),
        (256, "clientPort=1\n", "no id from 0 to 255"),
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
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("myid"), "2").unwrap();
    std::fs::write(path("zoo.cfg.dynamic.10000002a"), THREE).unwrap();
    std::fs::write(path("zoo.cfg.dynamic.next"), format!("{THREE}version=10000002b")).unwrap();
    let text = format!(
        "dataDir={0}\ninitLimit=5\nsyncLimit=5\ndynamicConfigFile={0}/zoo.cfg.dynamic.10000002a\n",
        dir.path().display()
    );
    std::fs::write(path("zoo.cfg"), &text).unwrap();
    let config = Config::from_file(&path("zoo.cfg")).unwrap();
    assert_eq!(config.ensemble.unwrap().version(), 0x1_0000_002a);
    assert_eq!(config.proposed.unwrap().version(), 0x1_0000_002b);
    std::fs::write(path("zoo.cfg"), text + "server.1=a:1:2\n").unwrap();
    assert!(Config::from_file(&path("zoo.cfg")).unwrap_err().to_string().contains("too"));
}
