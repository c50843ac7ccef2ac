//! The operation codes of the client port and of transactions (`ZooDefs.OpCode`).

macro_rules! ops {
    ($($name:ident = $code:literal $word:literal),* $(,)?) => {
        /// An operation, as its code on the wire and in the log names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op { $($name),* }

        impl Op {
            pub fn code(self) -> i32 {
                match self { $(Self::$name => $code),* }
            }

            pub fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The name that Java's tools print.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

ops! {
    Notification = 0 "notification",
    Create = 1 "create",
    Delete = 2 "delete",
    Exists = 3 "exists",
    GetData = 4 "getData",
    SetData = 5 "setData",
    GetAcl = 6 "getACL",
    SetAcl = 7 "setACL",
    GetChildren = 8 "getChildren",
    Sync = 9 "sync",
    Ping = 11 "ping",
    GetChildren2 = 12 "getChildren2",
    Check = 13 "check",
    Multi = 14 "multi",
    Create2 = 15 "create2",
    Reconfig = 16 "reconfig",
    CheckWatches = 17 "checkWatches",
    RemoveWatches = 18 "removeWatches",
    CreateContainer = 19 "createContainer",
    DeleteContainer = 20 "deleteContainer",
    CreateTtl = 21 "createTTL",
    MultiRead = 22 "multiRead",
    Auth = 100 "auth",
    SetWatches = 101 "setWatches",
    Sasl = 102 "sasl",
    GetEphemerals = 103 "getEphemerals",
    GetAllChildrenNumber = 104 "getAllChildrenNumber",
    SetWatches2 = 105 "setWatches2",
    AddWatch = 106 "addWatch",
    WhoAmI = 107 "whoAmI",
    CreateSession = -10 "createSession",
    CloseSession = -11 "closeSession",
    Error = -1 "error",
}
