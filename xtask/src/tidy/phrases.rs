//! Phrases that a reader has to decode, each with its better wording. Data only: [`super::words`] looks for them.

/// A place where a forbidden phrase is allowed: the path from the workspace's root, the phrase and the reason.
pub(super) type Exception = (&'static str, &'static str, &'static str);

pub(super) const EXCEPTIONS: [Exception; 0] = [];

/// A phrase in lower case, and what to write instead. Case and line breaks do not matter, punctuation does.
pub(super) const PHRASES: [(&str, &str); 73] = [
    // Subjects that name nothing.
    ("who", NOUN),
    ("whoever", NOUN),
    ("whom", NOUN),
    ("nobody", NOUN),
    ("nobody's", NOUN),
    ("somebody", NOUN),
    ("somebody's", NOUN),
    ("anybody", NOUN),
    ("everybody", NOUN),
    // Verbs that are not the trade's.
    ("tell", VERB),
    ("tells", VERB),
    ("telling", VERB),
    ("told", VERB),
    ("hear", RECEIVE),
    ("hears", RECEIVE),
    ("heard", RECEIVE),
    ("hearing", RECEIVE),
    ("bury", "remove"),
    ("buries", "remove"),
    ("buried", "removed"),
    ("lend", "give, borrow"),
    ("lends", "gives, borrows"),
    ("lent", "given, borrowed"),
    ("look at", INSPECT),
    ("looks at", INSPECT),
    ("looked at", INSPECT),
    ("looking at", INSPECT),
    ("gave way", "was evicted"),
    ("give way", "is evicted"),
    ("gives way", "is evicted"),
    ("given way", "was evicted"),
    ("leaves by", "is routed via"),
    ("leave by", "is routed via"),
    ("left by", "was routed via"),
    ("take for", ASSUME),
    ("takes for", ASSUME),
    ("taken for", ASSUME),
    ("take it for", ASSUME),
    ("takes it for", ASSUME),
    ("took it for", ASSUME),
    ("takes them for", ASSUME),
    ("believed", "healthy, unhealthy, confirmed"),
    ("written down", "recorded"),
    ("writes down", "records"),
    ("changed hands", TRANSITION),
    ("changes hands", TRANSITION),
    ("change hands", TRANSITION),
    ("what becomes of", "the outcome of"),
    ("becomes of it", "the outcome"),
    ("becomes of them", "the outcome"),
    ("for want of", "for lack of"),
    // One term for one thing.
    ("out of reach", "unreachable, unresolved"),
    ("can be reached again", "is reachable again"),
    ("waits for its way", "has an unresolved next hop"),
    ("waiting for its way", "has an unresolved next hop"),
    ("way to it", "next hop, path"),
    ("ways to it", "next hops, paths"),
    ("the way to a backend", "next hop, path"),
    ("waiting no backend", "unresolved next hops 0"),
    ("on its way", "applying, in progress"),
    ("on their way", "applying, in progress, in transit"),
    ("all that is saved", "sync: in sync, OUT OF SYNC, applying"),
    ("slots would have", "slots after"),
    ("is none of", "is not one of, is not listed in"),
    ("are none of", "are not among, are not listed in"),
    ("none of ours", "not ours"),
    ("none of theirs", "not theirs"),
    ("all that are active", "fail-open: all active backends"),
    ("reads its files again", "reloads the configuration"),
    ("read its files again", "reload the configuration"),
    ("we ended it", "closed by us"),
    ("; there is:", "unknown X; known: …"),
    ("; there are:", "unknown X; known: …"),
];

const NOUN: &str = "a noun: the operator, the client, the caller, no backend, a router";
const VERB: &str = "announce, withdraw, report, show, return, distinguish";
const RECEIVE: &str = "receive, is notified of";
const INSPECT: &str = "read, check, inspect";
const ASSUME: &str = "assumed to be, treated as";
const TRANSITION: &str = "a transition: learning, tracked, settled";
