//! One DNS query (RFC 1035), and whether the response code of its answer is the expected one. It must not know the rest of the
//! answer.

use std::net::SocketAddr;

use maglev_model::{RCODES, is_dns_name};

use super::{CheckPath, Fault, datagram};

/// RFC 1035, section 4.1.1.
///
/// ```text
///  0  1  2  3  4  5  6  7  8  9  0  1  2  3  4  5
/// +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
/// |                      ID                       |
/// |QR|   Opcode  |AA|TC|RD|RA|   Z    |   RCODE   |
/// |                    QDCOUNT                    |
/// |          ANCOUNT, NSCOUNT, ARCOUNT            |
/// +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
/// ```
const HEADER: usize = 12;
const RECURSION_DESIRED: [u8; 2] = [0x01, 0x00];
const ONE_QUESTION: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
const IS_RESPONSE: u8 = 0x80;
/// Type A, class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Asks for the addresses of a name. The id is random, so that an answer cannot be forged without seeing the query.
pub(super) async fn ask(
    destination: SocketAddr,
    path: &CheckPath,
    id: u16,
    name: &str,
    expected: u8,
) -> Result<(), Fault> {
    let query = encode(id, name).ok_or_else(|| Fault::Unready(format!("{name} is not a name that can be queried")))?;
    let answer = datagram::ask(destination, path, &query, |answer| answers(answer, &query)).await?;
    let rcode = answer[3] & 0x0f;
    if rcode == expected { Ok(()) } else { Err(Fault::Unready(format!("DNS {}", shown(rcode)))) }
}

/// The query, if the name can be queried.
fn encode(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut query = Vec::from(id.to_be_bytes());
    query.extend(RECURSION_DESIRED);
    query.extend(ONE_QUESTION);
    if !is_dns_name(name) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).ok()?);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(ADDRESS);
    Some(query)
}

/// Whether this is a response to that query: its id and its question, in whatever case.
fn answers(answer: &[u8], query: &[u8]) -> bool {
    let same_question =
        answer.get(HEADER..query.len()).is_some_and(|question| question.eq_ignore_ascii_case(&query[HEADER..]));
    // A server that cannot parse the query, or refuses it, may leave the question out.
    let no_question = answer.len() >= HEADER && answer[4..6] == [0, 0];
    (same_question || no_question) && answer[..2] == query[..2] && answer[2] & IS_RESPONSE != 0
}

fn shown(rcode: u8) -> String {
    RCODES.get(usize::from(rcode)).map_or_else(|| format!("rcode {rcode}"), |name| name.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_has_the_form_of_rfc_1035() {
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";
        assert_eq!(encode(0x1234, "example.org").unwrap(), expected);
        assert_eq!(encode(0x1234, "example.org."), encode(0x1234, "example.org"));
        assert_eq!(encode(1, ".").unwrap()[HEADER..], *b"\x00\x00\x01\x00\x01", "the root");
        assert!(encode(1, &"a".repeat(63)).is_some());
        for bad in ["a..b", ".a", &"a".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(encode(1, bad), None, "{bad}");
        }
    }

    #[test]
    fn only_an_answer_to_the_query_is_accepted() {
        let query = encode(7, "example.org").unwrap();
        let mut answer = query.clone();
        assert!(!answers(&answer, &query), "the query itself");
        answer[2] |= IS_RESPONSE;
        assert!(answers(&answer, &query));
        answer[14] = answer[14].to_ascii_uppercase();
        assert!(answers(&answer, &query));
        assert!(!answers(&answer[..20], &query));
        answer[14] = b'z';
        assert!(!answers(&answer, &query), "another question");
        answer[4..6].fill(0);
        assert!(answers(&answer[..HEADER], &query), "refused without a question");
        answer[0] = 9;
        assert!(!answers(&answer, &query), "another id");
        assert_eq!([0, 3, 9].map(shown), ["NOERROR", "NXDOMAIN", "rcode 9"]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(answer in prop::collection::vec(any::<u8>(), 0..64)) {
            let query = encode(7, "example.org").unwrap();
            let _ = answers(&answer, &query);
        }
    }
}
