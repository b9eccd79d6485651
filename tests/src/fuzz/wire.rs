//! What peers send: frames of a control stream, requests and answers of a sync stream. The first byte says which.

use super::feed::Feed;
use bytes::Bytes;
use starling_proto::frames::{self, Answer, Frame};

/// The target.
pub fn wire(data: &[u8]) {
    let mut feed = Feed::new(data);
    match feed.below(3) {
        0 => frame(&Bytes::copy_from_slice(feed.rest())),
        1 => answer(&Bytes::copy_from_slice(feed.rest())),
        _ => request(feed.rest()),
    }
}

fn frame(bytes: &Bytes) {
    let Ok(frame) = Frame::decode(bytes) else { return };
    let again = frame.encode();
    assert_eq!(Frame::decode(&again).expect("what was encoded can be read"), frame);
    assert_eq!(frame.encode(), again);
}

fn answer(bytes: &Bytes) {
    let Ok(answer) = Answer::decode(bytes) else { return };
    let again = match &answer {
        Answer::Part { part, .. } => frames::answer_part(part),
        Answer::Done(vector) => frames::answer_done(&vector.encode()),
        Answer::Refused(why) => frames::answer_refused(why),
    };
    assert_eq!(Answer::decode(&again).expect("what was encoded can be read"), answer);
}

fn request(bytes: &[u8]) {
    let Ok(vector) = frames::decode_request(bytes) else { return };
    let again = frames::sync_request(&vector.encode());
    assert_eq!(frames::decode_request(&again).expect("what was encoded can be read"), vector);
}
