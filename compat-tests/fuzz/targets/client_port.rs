//! The client port: a conversation is given bytes in pieces, and mail of the core between them. Whatever comes, answers are
//! whole frames, no input overtakes another, and what is said in one piece comes to the same in many.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use zabra::conversation::{Bounds, Conversation, End, Limits, Step, Tally, World};
use zabra::model::owner::OwnerRules;
use zabra::model::{Budget, ConnId, DigestAlgorithm, SessionId};
use zabra::replica::{ClientMessage, Input};
use zabra::request::Rules;
use zabra::tree::Database;

/// A reply of the core: header alone.
const REPLY: [u8; 20] = [0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];

struct Side<'a> {
    talk: Conversation,
    world: World<'a>,
    inputs: Vec<Input>,
    handed_in: Vec<(i32, Vec<u8>)>,
    output: Vec<u8>,
    is_asked: bool,
    has_word: bool,
}

impl<'a> Side<'a> {
    fn new(world: World<'a>) -> Self {
        let talk = Conversation::new(ConnId(1), IpAddr::V4(Ipv4Addr::LOCALHOST));
        Self { talk, world, inputs: Vec::new(), handed_in: Vec::new(), output: Vec::new(), is_asked: false, has_word: false }
    }

    fn say(&mut self, bytes: &[u8]) {
        // A conversation that has bytes enough is not given more.
        if self.talk.has_space(self.world.bounds) {
            self.talk.take(bytes);
        }
        self.work();
    }

    fn work(&mut self) {
        while self.talk.over(self.world.bounds).is_none() {
            let work = Budget::default();
            let world = World { work: &work, ..self.world };
            if let Step::Word(_) = self.talk.advance(&world, &mut self.inputs, &mut Tally::default()) {
                self.talk.answer_word("word");
                self.has_word = true;
            }
            let sent = self.talk.output().len();
            self.output.extend_from_slice(self.talk.output());
            self.talk.sent(sent);
            self.talk.flushed();
            let inputs = std::mem::take(&mut self.inputs);
            if inputs.is_empty() && !work.is_spent() {
                return;
            }
            for input in inputs {
                match input {
                    Input::Connect { .. } => {
                        assert!(!self.is_asked, "one session a conversation");
                        self.is_asked = true;
                        self.mail(ClientMessage::Established { session: SessionId(7), timeout_ms: 10_000 }, b"");
                    }
                    Input::Request { request, .. } => {
                        self.handed_in.push((request.cxid, request.body.to_vec()));
                        self.mail(ClientMessage::Reply, &REPLY);
                    }
                    other => panic!("{other:?} from a conversation"),
                }
            }
        }
    }

    fn mail(&mut self, message: ClientMessage, bytes: &[u8]) {
        let work = Budget::default();
        let world = World { work: &work, ..self.world };
        self.talk.on_mail(message, bytes, &world, &mut Tally::default());
    }

    fn end(&mut self) {
        self.talk.end_of_input(End::ClientClosed);
        self.work();
    }
}

fuzz_target!(|data: &[u8]| {
    let db = Database::new(OwnerRules { extended_types: true, emulate_353: false });
    let rules = Rules { extended_types: true, digest_auth: Some(DigestAlgorithm::Sha1), ..Rules::default() };
    let limits = Limits { max_frame: 1 << 12, outstanding: 1000, admitted_bytes: usize::MAX, unlogged_bytes: usize::MAX, room: 64 << 20, enforced_schemes: Vec::new() };
    let work = Budget::default();
    let world = World {
        db: &db,
        work: &work,
        bounds: Bounds { limits: &limits, outstanding: 0, admitted_bytes: 0, unlogged_bytes: 0, may_read: true, refuses_writes: false },
        rules: &rules,
        logins: None,
        now: Duration::ZERO,
        touch_round: 1,
        nonce: || Some("nonce".into()),
    };
    let [step, data @ ..] = data else { return };
    let mut whole = Side::new(world);
    whole.say(data);
    whole.end();
    let mut pieces = Side::new(world);
    for piece in data.chunks(usize::from(*step).max(1)) {
        pieces.say(piece);
    }
    pieces.end();
    assert_eq!(whole.handed_in, pieces.handed_in);
    // What makes no request may be seen before the core answers what came before it: such a client loses those answers.
    if matches!(whole.talk.over(world.bounds), Some(End::ClientClosed | End::Done)) {
        assert_eq!(whole.output, pieces.output);
    }
    let mut rest = &whole.output[..];
    while !whole.has_word && !rest.is_empty() {
        let len = i32::from_be_bytes(*rest.first_chunk().expect("a length")) as usize;
        rest = rest.get(4 + len..).expect("a whole frame");
    }
});
