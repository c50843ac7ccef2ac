//! Bytes of real servers and clients, round trips, and what must not happen with hostile lengths.

use super::records::*;
use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.to_vec()
}

#[test]
fn a_connect_request_of_a_java_client() {
    let bytes =
        hex("00000000 0000000000000000 00002710 0000000000000000 00000010 00000000000000000000000000000000");
    let request = ConnectRequest::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!((request.timeout, request.session_id, request.passwd), (10_000, 0, Some(&[0; 16][..])));
    assert_eq!(encoded(|out| request.encode(out)), bytes);
}

#[test]
fn a_notification_of_a_java_server() {
    let bytes = hex("ffffffff 0000000000000114 00000000 00000001 00000003 00000006 2f772f6e2f6b");
    let mut from = Reader::new(&bytes);
    let header = ReplyHeader::decode(&mut from).unwrap();
    let event = WatcherEvent::decode(&mut from).unwrap();
    assert_eq!((header.xid, header.zxid, header.err), (-1, 0x114, 0));
    assert_eq!((event.kind, event.state, event.path), (1, 3, &b"/w/n/k"[..]));
    assert_eq!(from.remaining(), 0);
}

#[test]
fn a_create_of_a_java_servers_log() {
    let bytes = hex("01000010ae3a0000 00000001 0000000000000003 000001a204be8e27 00000001
         00000002 2f61 00000002 6869 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00 00000001
         00000002 000000018fb52eb8");
    let mut from = SharedReader::new(bytes.clone().into());
    let header = TxnHeader::decode(&mut from).unwrap();
    let txn = CreateTxn::decode(&mut from).unwrap();
    let digest = TxnDigest::decode(&mut from).unwrap();
    assert_eq!((header.zxid, header.op, header.time), (3, 1, 0x1a2_04be_8e27));
    assert_eq!((&txn.path[..], txn.data.as_deref(), txn.parent_cversion), (&b"/a"[..], Some(&b"hi"[..]), 1));
    assert_eq!((txn.acl[0].perms, &txn.acl[0].id.id[..], txn.ephemeral), (31, &b"anyone"[..], false));
    let again = encoded(|out| {
        header.encode(out);
        txn.encode(out);
        digest.encode(out);
    });
    assert_eq!(again, bytes);
}

#[test]
fn a_learners_first_packet() {
    let bytes = hex("0000000b 0000000000000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff");
    let packet = QuorumPacket::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!((packet.kind, packet.zxid, &packet.authinfo), (11, 0, &None));
    let info = LearnerInfo::decode(&mut Reader::new(packet.data.unwrap())).unwrap();
    assert_eq!((info.server_id, info.protocol_version, info.config_version), (1, 0x10000, 0));
    assert_eq!(encoded(|out| packet.encode(out)), bytes);
}

#[test]
fn a_count_that_the_frame_cannot_bear_out_allocates_nothing() {
    let mut bytes = 0_i64.to_be_bytes().to_vec();
    bytes.extend(i32::MAX.to_be_bytes());
    bytes.extend([0; 100]);
    let error = SetWatches::decode(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error, DecodeError::Truncated { needed: i32::MAX as usize * 4, left: 100 });
}

#[test]
fn lengths_below_minus_one_are_refused_and_counts_are_empty() {
    assert_eq!(
        GetAclRequest::decode(&mut Reader::new(&hex("fffffffe"))),
        Err(DecodeError::NegativeLength(-2))
    );
    assert_eq!(GetAclRequest::decode(&mut Reader::new(&hex("ffffffff"))), Err(DecodeError::UnexpectedNull));
    let bytes = hex("fffffff0");
    let children = GetChildrenResponse::decode(&mut Reader::new(&bytes)).unwrap();
    assert!(children.children.is_empty());
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn acl() -> impl Strategy<Value = GivenAcl<Vec<u8>>> {
    let text_or_null = || prop::option::of(text());
    (any::<i32>(), text_or_null(), text_or_null())
        .prop_map(|(perms, scheme, id)| GivenAcl { perms, id: GivenId { scheme, id } })
}

/// The owned forms of a record made of borrowed ones.
fn owned(acl: &GivenAcl<&[u8]>) -> GivenAcl<Vec<u8>> {
    let owned = |text: Option<&[u8]>| text.map(<[u8]>::to_vec);
    GivenAcl { perms: acl.perms, id: GivenId { scheme: owned(acl.id.scheme), id: owned(acl.id.id) } }
}

proptest! {
    #[test]
    fn a_record_survives_its_encoding(
        path in text(),
        data in prop::option::of(text()),
        acls in prop::collection::vec(acl(), 0..5),
        flags in any::<i32>(),
    ) {
        let request = CreateRequest { path, data, acl: acls, flags };
        let bytes = encoded(|out| request.encode(out));
        prop_assert_eq!(bytes.len(), request.encoded_len());
        let mut from = Reader::new(&bytes);
        let again = CreateRequest::decode(&mut from).unwrap();
        prop_assert_eq!(from.remaining(), 0);
        prop_assert_eq!(again.path, &request.path[..]);
        prop_assert_eq!(again.data, request.data.as_deref());
        prop_assert_eq!(again.acl.iter().map(owned).collect::<Vec<_>>(), request.acl);
        // Cut anywhere, it is truncated and never something else.
        for cut in 0..bytes.len() {
            let result = CreateRequest::decode(&mut Reader::new(&bytes[..cut]));
            let truncated = matches!(result, Err(DecodeError::Truncated { .. }));
            prop_assert!(truncated, "cut at {}", cut);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = SetWatches2::decode(&mut Reader::new(&bytes));
        let _ = QuorumPacket::decode(&mut Reader::new(&bytes));
        let _ = crate::jute::records::MultiTxn::decode(&mut SharedReader::new(bytes.clone().into()));
        let _ = AclMapEntry::decode(&mut Reader::new(&bytes));
    }
}

#[path = "../../jute/compiler/emit.rs"]
mod emit;
#[path = "../../jute/compiler/grammar.rs"]
mod grammar;

fn compile(text: &str) -> Result<String, String> {
    grammar::parse("x.jute", text).and_then(|records| emit::rust(&records))
}

#[test]
fn a_wrong_jute_file_names_file_line_and_column() {
    for (text, message) in [
        ("record A { int x }", "x.jute:1:18: expected `;`"),
        ("record A { int x; }\n\n  recrd B {}", "x.jute:3:3: expected `record`, or the end of the file"),
        ("record A {\n  vector<int x;\n}", "x.jute:2:14: expected `>`"),
        ("record { }", "x.jute:1:8: expected a record's name"),
        ("record A { B b; }", "x.jute:1:8: field `b` has an unknown type `B`"),
        ("record A { A a; }", "x.jute:1:8: field `a` has an unknown type `A`"),
        ("record A { }\nrecord A { }", "x.jute:2:8: a second record `A`"),
    ] {
        assert_eq!(compile(text), Err(message.to_string()), "{text}");
    }
}

#[test]
fn records_may_stand_in_any_order() {
    let rust =
        compile("record A { vector<B>? b; } // why\n/// What it is.\nrecord B { ustring? s; }").unwrap();
    assert!(rust.contains("/// What it is.") && rust.contains("pub b: Option<Vec<B<B>>>"), "{rust}");
}
