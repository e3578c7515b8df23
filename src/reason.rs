//! Every refusal and every close, in one table: code, name, retry advice, HTTP status, sentence.
//! Owns the words that peers, logs, metrics and documents use for "no".
//! # Invariants: codes and names are unique; a close code below 4500 (and the drain codes of
//! RFC 6455) tells the client to reconnect, one from 4500 on tells it not to.
//! # Not here: who decides to refuse.

use std::fmt;

/// What a client should do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will be refused again.
    Never,
    /// Try again after a while.
    Later,
    /// Get a new token first.
    Refresh,
    /// Reconnect and subscribe with the last position.
    Resume,
}

impl Retry {
    /// The advice as the JSON spelling writes it.
    pub fn name(self) -> &'static str {
        match self {
            Retry::Never => "never",
            Retry::Later => "later",
            Retry::Refresh => "refresh",
            Retry::Resume => "resume",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident = $code:literal, $name:literal, $retry:ident, $status:literal, $sentence:literal;)*) => {
        /// Why something was refused or a connection closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $sentence] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// The number that programs compare; for a close it is the WebSocket close code.
            pub const fn code(self) -> u16 {
                match self { $(Reason::$variant => $code,)* }
            }

            /// The name that programs and metrics use.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// What a client should do about it.
            pub const fn retry(self) -> Retry {
                match self { $(Reason::$variant => Retry::$retry,)* }
            }

            /// The status of an HTTP answer with this reason.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$variant => $status,)* }
            }

            /// The sentence for a person.
            pub const fn sentence(self) -> &'static str {
                match self { $(Reason::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    // A command is refused; the connection stays.
    BadCommand           = 100, "badCommand",           Never,  400, "the command could not be understood";
    BadTopic             = 101, "badTopic",             Never,  400, "the topic name is not valid";
    BadFilter            = 102, "badFilter",            Never,  400, "the topic filter is not valid";
    BadPayload           = 103, "badPayload",           Never,  400, "the payload is not valid";
    BadPosition          = 104, "badPosition",          Never,  400, "the position is not valid";
    BadOption            = 105, "badOption",            Never,  400, "an option of the command is not valid";
    BadKey               = 106, "badKey",               Never,  400, "the key is not valid";
    AlreadySubscribed    = 107, "alreadySubscribed",    Never,  409, "this connection already has that subscription";
    NotSubscribed        = 108, "notSubscribed",        Never,  404, "this connection has no such subscription";
    TooManySubscriptions = 109, "tooManySubscriptions", Never,  429, "this connection has as many subscriptions as it may have";
    TooManyFilters       = 110, "tooManyFilters",       Never,  429, "this connection has as many filter subscriptions as it may have";
    TooManyPositions     = 111, "tooManyPositions",     Never,  400, "the command names more positions than it may";
    TooManyTopics        = 112, "tooManyTopics",        Later,  503, "the broker holds as many topics as it may";
    SnapshotTooLarge     = 113, "snapshotTooLarge",     Never,  413, "more would have to be sent first than one subscription may ask for";
    TooLarge             = 114, "tooLarge",             Never,  413, "the message is larger than the limit";
    NotAllowed           = 115, "notAllowed",           Never,  403, "this is not allowed";
    IdempotencyMismatch  = 116, "idempotencyMismatch",  Never,  409, "the idempotency key was used for another message";
    Overloaded           = 117, "overloaded",           Later,  503, "a shard has as much work waiting as it may have";
    TooManyKeys          = 118, "tooManyKeys",          Never,  429, "the topic holds as many keys as it may";
    Unauthenticated      = 119, "unauthenticated",      Refresh, 401, "a token must be shown first";
    TooOften             = 120, "tooOften",             Later,  429, "this connection publishes more often than it may";
    SubscribesTooOften   = 121, "subscribesTooOften",   Later,  429, "this connection subscribes more often than it may";
    TooManyNewTopics     = 122, "tooManyNewTopics",     Later,  429, "this connection begins topics more often than it may";
    TooManyDeliveries    = 123, "tooManyDeliveries",    Later,  429, "what this connection publishes has been delivered more often than it may";

    // A resume or a history query cannot be exact.
    EpochChanged         = 150, "epochChanged",         Never,  409, "the topic has begun anew since that position";
    Trimmed              = 151, "trimmed",              Never,  410, "the history no longer holds the first missing message";
    Expired              = 152, "expired",              Never,  410, "the first missing message has become too old";
    TooMany              = 153, "tooMany",              Never,  413, "more messages are missing than one resume may send";
    EngineUnavailable    = 154, "engineUnavailable",    Later,  503, "the engine could not be asked";

    // An HTTP request is refused.
    BadRequest           = 400, "badRequest",           Never,  400, "the HTTP request is not valid";
    BadOrigin            = 403, "badOrigin",            Never,  403, "pages of this origin may not use this server";
    NotFound             = 404, "notFound",             Never,  404, "there is nothing at this path";
    MethodNotAllowed     = 405, "methodNotAllowed",     Never,  405, "this path does not take this method";
    BadContentType       = 415, "badContentType",       Never,  415, "the body must be application/json";
    BadHost              = 421, "badHost",              Never,  421, "this server has no such name";
    UpgradeRequired      = 426, "upgradeRequired",      Never,  426, "this path speaks WebSocket version 13";
    BadSubprotocol       = 430, "badSubprotocol",       Never,  400, "none of the offered subprotocols is spoken here";
    TooManyConnections   = 431, "tooManyConnections",   Later,  503, "the server has as many connections as it may have";
    NotReady             = 432, "notReady",             Later,  503, "the server is starting or stopping";
    TooManyPending       = 433, "tooManyPending",       Later,  503, "as many connections as may are still to send their first request";
    TooManyHandshakes    = 434, "tooManyHandshakes",    Later,  503, "as many TLS handshakes are under way as may be";
    TooManyFromAddress   = 435, "tooManyFromAddress",   Later,  429, "this address connects more often, or has more connections, than one may";
    NoFiles              = 436, "noFiles",              Later,  503, "the server has no file left for another connection";
    TooLate              = 437, "tooLate",              Later,  408, "the first request did not arrive whole in time";
    Unfinished           = 438, "unfinished",           Later,  400, "the peer left before its handshake was whole";
    BadProxyHeader       = 439, "badProxyHeader",       Never,  400, "the connection does not begin with a PROXY header of a trusted proxy";
    BadTls               = 440, "badTls",               Never,  400, "the TLS handshake failed";
    BadCertificate       = 441, "badCertificate",       Never,  403, "the client's certificate is missing or not valid";
    NoConnection         = 442, "noConnection",         Never,  404, "there is no such connection";
    TooManyRevocations   = 443, "tooManyRevocations",   Later,  503, "as many revocations are in force as may be";
    TooManyRequests      = 444, "tooManyRequests",      Later,  503, "as many requests of this kind are being served as may be";
    BadReload            = 445, "badReload",            Never,  422, "the new configuration is not in force, and nothing has changed";

    // A connection is closed; the client should reconnect.
    GoingAway            = 1001, "goingAway",           Resume, 503, "the server is stopping";
    InternalError        = 1011, "internalError",       Resume, 500, "the server failed while serving this connection";
    TokenExpired         = 4401, "tokenExpired",         Refresh, 401, "the token has expired";
    SlowConsumer         = 4408, "slowConsumer",        Resume, 503, "the connection did not read fast enough";
    NoPong               = 4410, "noPong",              Resume, 503, "the connection did not answer a ping in time";
    Disconnected         = 4411, "disconnected",        Resume, 503, "an operator has closed the connection";
    MessageTooLate       = 4412, "messageTooLate",      Resume, 408, "a message did not arrive whole in time";
    Shed                 = 4429, "shed",                Later,  503, "the broker is short of memory";

    // A connection is closed; the client should not reconnect as it is.
    Normal               = 1000, "normal",              Never,  200, "the client closed the connection";
    ProtocolError        = 1002, "protocolError",       Never,  400, "the peer broke the WebSocket protocol";
    UnsupportedData      = 1003, "unsupportedData",     Never,  400, "the subprotocol does not use this kind of message";
    InvalidUtf8          = 1007, "invalidUtf8",         Never,  400, "a text message is not UTF-8";
    MessageTooBig        = 1009, "messageTooBig",       Never,  413, "a message is larger than the limit";
    BadProtocol          = 4500, "badProtocol",         Never,  400, "the connection sent too many commands that could not be understood";
    BadToken             = 4501, "badToken",             Never,  401, "the token is not valid here";
    NoToken              = 4502, "noToken",              Never,  401, "the connection showed no token in time";
    Forbidden            = 4503, "forbidden",            Never,  403, "what this connection was let in by counts no more";
    TooManyPings         = 4504, "tooManyPings",        Never,  429, "the connection sent pings and pongs more often than it may";
}

impl Reason {
    /// Whether a client that was closed for this reason should come back by itself.
    pub const fn reconnects(self) -> bool {
        matches!(self.retry(), Retry::Resume | Retry::Later | Retry::Refresh)
    }

    /// Whether this can be the answer to an upgrade to WebSocket.
    pub const fn is_handshake_failure(self) -> bool {
        matches!(
            self,
            Reason::BadRequest
                | Reason::BadOrigin
                | Reason::MethodNotAllowed
                | Reason::UpgradeRequired
                | Reason::BadSubprotocol
                | Reason::BadToken
                | Reason::TokenExpired
                | Reason::TooManyFromAddress
        )
    }

    /// Whether a connection can end for this before it has sent its whole first request.
    pub const fn is_arrival_failure(self) -> bool {
        matches!(
            self,
            Reason::TooManyConnections
                | Reason::TooManyPending
                | Reason::TooManyHandshakes
                | Reason::TooManyFromAddress
                | Reason::NoFiles
                | Reason::TooLate
                | Reason::Unfinished
                | Reason::BadProxyHeader
                | Reason::BadTls
                | Reason::BadCertificate
                | Reason::Shed
        )
    }

    /// Whether this can be the answer to a resume.
    pub const fn is_recovery_failure(self) -> bool {
        matches!(
            self,
            Reason::EpochChanged
                | Reason::Trimmed
                | Reason::Expired
                | Reason::TooMany
                | Reason::NotAllowed
                | Reason::EngineUnavailable
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// A reason and, where there is one, what exactly was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row of the table.
    pub reason: Reason,
    /// The particulars, with the numbers: `message is 70000 bytes, the limit is 65536`.
    pub detail: Option<Box<str>>,
}

impl Refusal {
    /// A refusal with its particulars.
    pub fn new(reason: Reason, detail: impl Into<Box<str>>) -> Refusal {
        Refusal { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { reason, detail: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_and_names_are_unique() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        let names: HashSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn the_range_of_a_private_close_code_says_whether_to_reconnect() {
        for reason in Reason::ALL.iter().filter(|r| r.code() >= 4000) {
            assert_eq!(reason.reconnects(), reason.code() < 4500, "{reason:?}");
        }
    }

    #[test]
    fn a_close_reason_fits_a_control_frame() {
        // RFC 6455 section 5.5: 125 bytes, of which two hold the code.
        for reason in Reason::ALL {
            assert!(reason.name().len() + 2 + reason.sentence().len() <= 123, "{reason:?}");
        }
    }

    #[test]
    fn a_refusal_reads_as_one_sentence() {
        let refusal = Refusal::new(Reason::TooLarge, "message is 70000 bytes, the limit is 65536");
        assert_eq!(
            refusal.to_string(),
            "the message is larger than the limit: message is 70000 bytes, the limit is 65536"
        );
    }
}
