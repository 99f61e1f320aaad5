//! `onelog cluster …`.

use onelog_command::{CommandError, Context};
use onelog_terminal::{Out, Table, cell, thousands};
use serde_json::{Value, json};

use super::tables::list_of;
use crate::confirm::confirm;
use crate::wire::shown;

/// The most characters of an error in the list.
const ERROR_CHARS_MAX: usize = 120;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show who leads and who takes part (also what `onelog cluster` alone does)
    Status,
    /// Add a node as a learner, which gets the log and decides nothing; or record a member's new address
    Add {
        /// The number of the node, never used before
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        number: u64,
        /// Where the other nodes reach it, HOST:PORT
        address: String,
    },
    /// Make a voter of a learner that has caught up
    Promote {
        /// The number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        number: u64,
    },
    /// Remove a node, for ever: its number is not used again
    Remove {
        /// The number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        number: u64,
        /// Do not ask; needed where there is no terminal
        #[arg(long)]
        yes: bool,
        /// Also where the voters that are left could commit nothing
        #[arg(long)]
        force: bool,
    },
    /// Hand the leadership to another voter
    Transfer {
        /// The number of the voter
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        number: u64,
    },
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let member = |number: &u64| format!("/v1/cluster/members/{number}");
    let (answer, said) = match args.command.as_ref().unwrap_or(&Command::Status) {
        Command::Status => (client.get("/v1/cluster", &[])?, None),
        Command::Add { number, address } => {
            let body = json!({"node": number, "address": address});
            let answer = client.post("/v1/cluster/members", &body)?;
            (
                answer,
                Some(format!("node {number} is a member, at {address}")),
            )
        }
        Command::Promote { number } => {
            let path = format!("{}/promote", member(number));
            let answer = client.post(&path, &json!({}))?;
            (answer, Some(format!("node {number} votes")))
        }
        Command::Remove { number, yes, force } => {
            let what = format!("removes node {number} from the cluster for ever");
            confirm(*yes, &what, &number.to_string())?;
            let force = if *force { "?force=true" } else { "" };
            let answer = client.delete(&format!("{}{force}", member(number)))?;
            (answer, Some(format!("node {number} is removed")))
        }
        Command::Transfer { number } => {
            let answer = client.post("/v1/cluster/transfer", &json!({"node": number}))?;
            (answer, Some(format!("node {number} leads")))
        }
    };
    let mut out = Out::new();
    match (context.json, said) {
        (true, _) => out.json(&answer)?,
        (false, Some(said)) => out.line(&said)?,
        (false, None) => print(&answer, &mut out)?,
    }
    Ok(out.flush()?)
}

fn print(cluster: &Value, out: &mut Out) -> std::io::Result<()> {
    out.line(&summary(cluster))?;
    if cluster["alone"] == true {
        return Ok(());
    }
    let mut table = Table::new(&[
        "node",
        "role",
        "address",
        "connected",
        ">entries",
        "why not",
    ]);
    for member in list_of(cluster, "members") {
        table.row([
            shown(&member["node"]),
            role(cluster, member).to_owned(),
            member["address"].as_str().unwrap_or("-").to_owned(),
            match (&member["is_connected"], &member["takes_snapshot"]) {
                (Value::Bool(true), Value::Bool(true)) => "yes, gets a snapshot",
                (Value::Bool(true), _) => "yes",
                _ => "no",
            }
            .to_owned(),
            matched(member),
            cell(&why_not(member), ERROR_CHARS_MAX),
        ]);
    }
    table.print(out)
}

/// A leader knows nothing of a member that it has not heard of since its election.
fn matched(member: &Value) -> String {
    let is_known = member["is_active"] == true || member["matched"] != 0;
    let matched = member["matched"].as_u64().filter(|_| is_known);
    matched.map_or_else(|| "-".to_owned(), thousands)
}

/// Why a member is not connected, is not the only one of its number, or does not follow.
fn why_not(member: &Value) -> String {
    if let Some(other) = member["other_address"].as_str() {
        return format!("refused: the same number at {other}");
    }
    let reasons = [&member["last_error"], &member["not_following"]];
    let why = reasons.into_iter().find_map(Value::as_str);
    why.unwrap_or_default().to_owned()
}

fn role(cluster: &Value, member: &Value) -> &'static str {
    match (
        cluster["leader"] == member["node"],
        member["is_voter"] == true,
    ) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "learns",
    }
}

/// A line about the cluster, as a node's own answer shows it.
pub fn summary(cluster: &Value) -> String {
    if cluster["alone"] == true {
        return "this server is alone: it was started without a number (--node)".to_owned();
    }
    let node = shown(&cluster["node"]);
    let leader = match (&cluster["leader"], cluster["leads"] == true) {
        (Value::Null, _) => "no leader is known".to_owned(),
        (_, true) => "it leads".to_owned(),
        (leader, false) => format!("node {} leads", shown(leader)),
    };
    let members = list_of(cluster, "members");
    let voters = members.iter().filter(|member| member["is_voter"] == true);
    let voters = voters.count();
    let learners = members.len() - voters;
    let connected = members.iter().filter(|m| m["is_connected"] == true).count();
    let mut line = format!(
        "node {node}: {leader}, term {}, voters {voters}, learners {learners}, connected {connected} of {}",
        shown(&cluster["term"]),
        members.len()
    );
    let trouble = match (cluster["is_removed"] == true, cluster["is_member"] == true) {
        (true, _) => Some("it was removed: its number is not used again"),
        (false, false) => Some("it waits to be added"),
        (false, true) => None,
    };
    if let Some(trouble) = trouble {
        line += &format!("; {trouble}");
    }
    if cluster["disk_full"] == true {
        line += "; its disk has no room, so it writes nothing and falls behind";
    }
    if let Some(error) = cluster["join_error"].as_str() {
        line += &format!("; {error}");
    }
    if let Some(why) = cluster["not_following"].as_str()
        && cluster["disk_full"] != true
    {
        line += &format!("; it does not follow: {why}");
    }
    if let Some(mended) = cluster["mended_frames"].as_u64().filter(|count| *count > 0) {
        line += &format!("; {mended} damaged frames of its log were mended since its start");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_says_why_it_is_not_connected_or_does_not_follow() {
        let mut member = json!({"last_error": null, "not_following": "no room"});
        assert_eq!(why_not(&member), "no room");
        member["last_error"] = json!("no route");
        assert_eq!(why_not(&member), "no route");
        member["other_address"] = json!("b:1");
        assert_eq!(why_not(&member), "refused: the same number at b:1");
        assert_eq!(why_not(&json!({})), "");
    }

    #[test]
    fn the_cluster_is_a_line() {
        assert!(summary(&json!({"alone": true})).contains("is alone"));
        let member = |node: u64, is_voter| json!({"node": node, "is_voter": is_voter, "is_connected": node < 3});
        let cluster = json!({"node": 2, "leader": 1, "leads": false, "term": 7, "is_member": true,
            "is_removed": false, "join_error": null,
            "members": [member(1, true), member(2, true), member(3, false)]});
        assert_eq!(
            summary(&cluster),
            "node 2: node 1 leads, term 7, voters 2, learners 1, connected 2 of 3"
        );
        let mut waits = cluster;
        waits["leader"] = Value::Null;
        waits["is_member"] = json!(false);
        waits["join_error"] = json!("no member is connected");
        let line = summary(&waits);
        assert!(line.contains("no leader is known"), "{line}");
        assert!(
            line.ends_with("; it waits to be added; no member is connected"),
            "{line}"
        );
        waits["disk_full"] = json!(true);
        let line = summary(&waits);
        assert!(line.contains("; its disk has no room"), "{line}");
        waits["disk_full"] = json!(false);
        waits["not_following"] = json!("a snapshot was refused");
        let line = summary(&waits);
        assert!(
            line.ends_with("; it does not follow: a snapshot was refused"),
            "{line}"
        );
        waits["mended_frames"] = json!(2);
        let line = summary(&waits);
        assert!(line.contains("; 2 damaged frames of its log"), "{line}");
    }
}
