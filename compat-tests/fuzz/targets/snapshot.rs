//! The loader of snapshot bodies, fed in windows of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zabra::model::owner::OwnerRules;
use zabra::tree::Loader;

fuzz_target!(|data: &[u8]| {
    let Some((step, body)) = data.split_first() else { return };
    let mut loader = Loader::new(OwnerRules { extended_types: true, emulate_353: false });
    let (mut at, mut end) = (0, 0);
    while !loader.is_done() {
        match loader.feed(&body[at..end]) {
            Ok(0) if end == body.len() => return,
            Ok(0) => end = (end + 1 + usize::from(*step)).min(body.len()),
            Ok(taken) => at += taken,
            Err(_) => return,
        }
    }
    let _ = loader.finish();
});
