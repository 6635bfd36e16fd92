//! nf_tables without a fork: one netlink batch is one atomic change of the ruleset.
//!
//! [`Batch`] collects changes, [`NftSocket::commit`] applies all of them or none and says which one the kernel
//! refused. [`expr`] holds the virtual machine's instructions that rules are made of, [`set`] sets, maps and their
//! elements. What `nft -j list ruleset` prints of the result is the test of it (`tests/root/cni_portmap.rs`).
//!
//! A change that depends on what is there (delete an element if it is still ours) reads with
//! [`NftSocket::generation`] first and commits [`Batch::at_generation`]: if anything in the ruleset changed in
//! between, the kernel refuses the whole batch with ERESTART and the caller looks again.

mod attribute;
pub mod expr;
pub mod set;

use nix::errno::Errno;

use crate::Result;
use crate::netlink::{Answer, Attributes, Builder, Protocol, Socket, refused};
pub use expr::Expression;
pub use set::{Data, Element, KeyType, NewSet, Verdict};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
const NLM_F_CREATE: u16 = libc::NLM_F_CREATE as u16;
const NLM_F_EXCL: u16 = libc::NLM_F_EXCL as u16;
const NLM_F_APPEND: u16 = libc::NLM_F_APPEND as u16;
const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;

/// The family that a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 only.
    Ip = libc::NFPROTO_IPV4 as u8,
    /// IPv6 only.
    Ip6 = libc::NFPROTO_IPV6 as u8,
    /// Both.
    Inet = libc::NFPROTO_INET as u8,
}

/// A table: the scope of chains, sets and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// What it sees.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
}

/// Where packets enter a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The chain's type.
    pub kind: ChainKind,
    /// The hook.
    pub hook: Hook,
    /// Chains of one hook run in ascending order.
    pub priority: i32,
}

/// The type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accepts or drops.
    Filter,
    /// Rewrites addresses of new connections.
    Nat,
}

/// The hooks of the IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// All that arrives, before routing.
    Prerouting = 0,
    /// What arrives for this host.
    Input = 1,
    /// What passes through.
    Forward = 2,
    /// What this host sends.
    Output = 3,
    /// All that leaves, after routing.
    Postrouting = 4,
}

/// Changes that become effective together.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
    generation: Option<u32>,
}

/// One change: its message without the header, and its words for errors.
#[derive(Debug)]
struct Change {
    kind: u16,
    flags: u16,
    family: Family,
    body: Vec<u8>,
    words: String,
}

impl Batch {
    /// Makes the batch fail with ERESTART if the ruleset is no longer at this [`NftSocket::generation`].
    pub fn at_generation(&mut self, generation: u32) {
        self.generation = Some(generation);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a table; one that exists stays as it is.
    pub fn add_table(&mut self, table: Table) {
        self.push(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE, table, format!("add table {}", table.name), |body| {
            body.text(attribute::NFTA_TABLE_NAME, table.name);
        });
    }

    /// Deletes a table with all in it; ENOENT if there is none.
    pub fn delete_table(&mut self, table: Table) {
        self.push(libc::NFT_MSG_DELTABLE, 0, table, format!("delete table {}", table.name), |body| {
            body.text(attribute::NFTA_TABLE_NAME, table.name);
        });
    }

    /// Adds a chain that only jumps reach, or with a `base` one that packets enter; one that exists stays as it is.
    pub fn add_chain(&mut self, table: Table, name: &str, base: Option<Base>) {
        const NF_ACCEPT: u32 = 1;
        let words = format!("add chain {} {name}", table.name);
        self.push(libc::NFT_MSG_NEWCHAIN, NLM_F_CREATE, table, words, |body| {
            body.text(attribute::NFTA_CHAIN_TABLE, table.name);
            body.text(attribute::NFTA_CHAIN_NAME, name);
            if let Some(base) = base {
                body.nest(attribute::NFTA_CHAIN_HOOK, |hook| {
                    hook.be32(attribute::NFTA_HOOK_HOOKNUM, base.hook as u32);
                    hook.be32(attribute::NFTA_HOOK_PRIORITY, base.priority as u32);
                });
                body.be32(attribute::NFTA_CHAIN_POLICY, NF_ACCEPT);
                body.text(attribute::NFTA_CHAIN_TYPE, base.kind.name());
            }
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: Table, chain: &str) {
        let words = format!("flush chain {} {chain}", table.name);
        self.push(libc::NFT_MSG_DELRULE, 0, table, words, |body| {
            body.text(attribute::NFTA_RULE_TABLE, table.name);
            body.text(attribute::NFTA_RULE_CHAIN, chain);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: Table, chain: &str, expressions: &[Expression], comment: Option<&str>) {
        let words = format!("add rule to {} {chain}", table.name);
        self.push(libc::NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table, words, |body| {
            body.text(attribute::NFTA_RULE_TABLE, table.name);
            body.text(attribute::NFTA_RULE_CHAIN, chain);
            body.nest(attribute::NFTA_RULE_EXPRESSIONS, |list| {
                for expression in expressions {
                    list.nest(attribute::NFTA_LIST_ELEM, |element| expression.write(element));
                }
            });
            if let Some(comment) = comment {
                body.attribute(attribute::NFTA_RULE_USERDATA, &set::comment_userdata(comment));
            }
        });
    }

    /// Adds a set or map; one that exists stays as it is.
    pub fn add_set(&mut self, table: Table, set: &NewSet<'_>) {
        // The kernel asks for a number that is unique in the batch.
        let id = self.changes.len() as u32 + 1;
        let words = format!("add set {} {}", table.name, set.name);
        self.push(libc::NFT_MSG_NEWSET, NLM_F_CREATE, table, words, |body| set.write(table.name, id, body));
    }

    /// Adds elements; EEXIST if the key of one is there, with older kernels EBUSY if its data are others.
    pub fn add_elements(&mut self, table: Table, set: &str, elements: &[Element]) {
        let words = format!("add an element to {} {set}", table.name);
        self.push(libc::NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, table, words, |body| {
            Element::write_list(elements, table.name, set, body);
        });
    }

    /// Deletes the elements with these keys; ENOENT if one isn't there.
    pub fn delete_elements(&mut self, table: Table, set: &str, elements: &[Element]) {
        let words = format!("delete an element of {} {set}", table.name);
        let keys: Vec<_> =
            elements.iter().map(|element| Element { data: None, comment: None, ..element.clone() }).collect();
        self.push(libc::NFT_MSG_DELSETELEM, 0, table, words, |body| {
            Element::write_list(&keys, table.name, set, body);
        });
    }

    fn push(&mut self, kind: libc::c_int, flags: u16, table: Table, words: String, fill: impl FnOnce(&mut Builder)) {
        let mut body = Builder::default();
        fill(&mut body);
        let kind = SUBSYSTEM << 8 | kind as u16;
        self.changes.push(Change { kind, flags, family: table.family, body: body.into_attributes(), words });
    }
}

impl ChainKind {
    fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

/// A socket to the nf_tables of the namespace in which it was opened.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
}

impl NftSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<NftSocket> {
        Ok(NftSocket { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Applies a batch, wholly or not at all; the error names the change that was refused.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        let Some(last_change) = batch.changes.len().checked_sub(1) else { return Ok(()) };
        let mut builder = Builder::default();
        let begin = self.socket.next_sequence();
        let batch_header = nfgenmsg(libc::AF_UNSPEC as u8, SUBSYSTEM);
        builder.message(libc::NFNL_MSG_BATCH_BEGIN as u16, NLM_F_REQUEST, begin);
        builder.raw(&batch_header);
        if let Some(generation) = batch.generation {
            builder.be32(attribute::NFNL_BATCH_GENID, generation);
        }
        let mut sequence = begin;
        for (position, change) in batch.changes.iter().enumerate() {
            // The kernel delivers refusals of all messages, and this one acknowledgement, after the commit.
            let acknowledge = if position == last_change { NLM_F_ACK } else { 0 };
            sequence = self.socket.next_sequence();
            builder.message(change.kind, NLM_F_REQUEST | change.flags | acknowledge, sequence);
            builder.raw(&nfgenmsg(change.family as u8, 0));
            builder.raw(&change.body);
        }
        let last = sequence;
        let end = self.socket.next_sequence();
        builder.message(libc::NFNL_MSG_BATCH_END as u16, NLM_F_REQUEST, end);
        builder.raw(&batch_header);
        self.socket.send(&builder.finish())?;
        self.outcome(batch, begin, last)
    }

    /// Reads until the first refusal or the last change's acknowledgement.
    fn outcome(&mut self, batch: &Batch, begin: u32, last: u32) -> Result<()> {
        loop {
            for answer in self.socket.receive()? {
                let Answer::Acknowledged { sequence, errno, explanation } = answer else { continue };
                let position = sequence.wrapping_sub(begin);
                if position > last.wrapping_sub(begin) {
                    continue; // left over from an earlier batch that was refused
                }
                let Some(errno) = errno else {
                    if sequence == last {
                        return Ok(());
                    }
                    continue;
                };
                let change = position.checked_sub(1).and_then(|index| batch.changes.get(index as usize));
                let request = match change {
                    Some(change) => format!("nf_tables, {}", change.words),
                    None => format!("nf_tables, commit {} changes", batch.changes.len()),
                };
                return Err(refused(request, errno, explanation));
            }
        }
    }

    /// The ruleset's generation: it grows with each commit of anyone.
    pub fn generation(&mut self) -> Result<u32> {
        let answers = self.ask(libc::NFT_MSG_GETGEN, Family::Inet, 0, "read the generation", |_| {})?;
        let found =
            answers.iter().flat_map(|answer| Attributes::new(answer)).find(|(kind, _)| *kind == attribute::NFTA_GEN_ID);
        let number = found.and_then(|(_, value)| value.try_into().ok()).map(u32::from_be_bytes);
        number.ok_or_else(|| refused("nf_tables, read the generation", Errno::EBADMSG, "the answer has none"))
    }

    /// All elements of a set or map; none if the set, or its table, does not exist.
    pub fn elements(&mut self, table: Table, set: &str) -> Result<Vec<Element>> {
        let words = format!("list the elements of {} {set}", table.name);
        let answers = self.ask(libc::NFT_MSG_GETSETELEM, table.family, NLM_F_DUMP, &words, |body| {
            body.text(attribute::NFTA_SET_ELEM_LIST_TABLE, table.name);
            body.text(attribute::NFTA_SET_ELEM_LIST_SET, set);
        });
        match answers {
            Ok(answers) => Ok(answers.iter().flat_map(|answer| Element::parse_list(answer)).collect()),
            Err(error) if error.is(Errno::ENOENT) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The number of rules in a chain; none if the chain, or its table, does not exist.
    pub fn rule_count(&mut self, table: Table, chain: &str) -> Result<usize> {
        let words = format!("list the rules of {} {chain}", table.name);
        let answers = self.ask(libc::NFT_MSG_GETRULE, table.family, NLM_F_DUMP, &words, |body| {
            body.text(attribute::NFTA_RULE_TABLE, table.name);
            body.text(attribute::NFTA_RULE_CHAIN, chain);
        });
        match answers {
            Ok(answers) => Ok(answers.len()),
            Err(error) if error.is(Errno::ENOENT) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends one question; returns the attributes of each message of the answer.
    fn ask(
        &mut self,
        kind: libc::c_int,
        family: Family,
        flags: u16,
        words: &str,
        fill: impl FnOnce(&mut Builder),
    ) -> Result<Vec<Vec<u8>>> {
        const NFGENMSG: usize = 4;
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(SUBSYSTEM << 8 | kind as u16, NLM_F_REQUEST | flags, sequence);
        builder.raw(&nfgenmsg(family as u8, 0));
        fill(&mut builder);
        self.socket.send(&builder.finish())?;
        let mut found = Vec::new();
        loop {
            for answer in self.socket.receive()?.filter(|answer| answer.sequence() == sequence) {
                let (errno, explanation) = match answer {
                    Answer::Message { payload, .. } => {
                        found.push(payload.get(NFGENMSG..).unwrap_or_default().to_vec());
                        if flags == NLM_F_DUMP {
                            continue;
                        }
                        return Ok(found);
                    }
                    Answer::Acknowledged { errno, explanation, .. } => (errno, explanation),
                    Answer::Done { errno, .. } => (errno, ""),
                };
                return match errno {
                    None => Ok(found),
                    Some(errno) => Err(refused(format_args!("nf_tables, {words}"), errno, explanation)),
                };
            }
        }
    }
}

/// `struct nfgenmsg`: family, version 0, and a number in network byte order.
fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
