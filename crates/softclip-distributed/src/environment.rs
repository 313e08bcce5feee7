//! Which of how many processes this is, as whoever started it says.

use std::fmt;

use softclip_torch::{cuda_devices, parse_device, select_device};
use tch::Device;

use crate::error::{Error, Result};

/// Where the store of a job listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// A name or an address.
    pub address: String,
    /// Its TCP port.
    pub port: u16,
}

/// This process's place among the ranks of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// From 0 to `world_size` - 1.
    pub rank: usize,
    /// The number of processes.
    pub world_size: usize,
    /// The place among the processes of this machine, which chooses the GPU.
    pub local_rank: usize,
    /// The number of processes of this machine, where it is told.
    pub local_world_size: Option<usize>,
    /// Where the ranks meet; none if there is only one, or they do not.
    pub master: Option<Master>,
    /// Whether a launcher hosts the store, so that rank 0 is a client too.
    pub agent_store: bool,
    /// How often the job has been started anew.
    pub restart: u64,
}

/// The variables of one kind of launcher.
struct Family {
    name: &'static str,
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
    local_size: Option<&'static str>,
}

/// In the order in which they are asked: those that are set anew for each process come before those that a batch script hands on.
const FAMILIES: [Family; 4] = [
    Family { name: "torchrun", rank: "RANK", size: "WORLD_SIZE", local_rank: "LOCAL_RANK", local_size: Some("LOCAL_WORLD_SIZE") },
    Family {
        name: "Open MPI",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: Some("OMPI_COMM_WORLD_LOCAL_SIZE"),
    },
    Family {
        name: "PMI",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_size: Some("MPI_LOCALNRANKS"),
    },
    Family { name: "Slurm", rank: "SLURM_PROCID", size: "SLURM_NTASKS", local_rank: "SLURM_LOCALID", local_size: None },
];

impl Environment {
    /// One process by itself.
    pub fn alone() -> Self {
        Environment {
            rank: 0,
            world_size: 1,
            local_rank: 0,
            local_world_size: Some(1),
            master: None,
            agent_store: false,
            restart: 0,
        }
    }

    /// Reads the variables of torchrun (and `softclip launch`), Open MPI, PMI or Slurm: the first family that is there. None of them:
    /// one process by itself.
    ///
    /// # Errors
    /// A variable is missing, holds no number, or contradicts another; the message names it.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// As [`from_env`](Self::from_env), by any look-up of variables.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        Self::read(get, true)
    }

    /// As [`from_env`](Self::from_env), for processes that share work and never meet: `MASTER_ADDR` is not asked for.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn apart_from_env() -> Result<Self> {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()), false)
    }

    fn read(get: impl Fn(&str) -> Option<String>, meet: bool) -> Result<Self> {
        let Some(family) = FAMILIES.iter().find(|f| get(f.rank).is_some() || (f.name == "torchrun" && get(f.size).is_some()))
        else {
            return Ok(Self::alone());
        };
        let needed = |variable, by: &str| {
            number(&get, variable)?.ok_or_else(|| Error::Missing {
                variable,
                because: format!("but {by} is ({}'s variables go together)", family.name),
            })
        };
        let rank = needed(family.rank, family.size)?;
        let world_size = needed(family.size, family.rank)?;
        let local_size = family.local_size.map(|variable| number(&get, variable)).transpose()?.flatten();
        let local_rank = match number(&get, family.local_rank)? {
            Some(local) => local,
            // One process a machine, as Kubernetes' operators have it.
            None if local_size.unwrap_or(1) == 1 => 0,
            None => needed(family.local_rank, family.local_size.unwrap_or(family.rank))?,
        };
        family.below(family.rank, rank, family.size, world_size)?;
        if let (Some(variable), Some(size)) = (family.local_size, local_size) {
            family.below(family.local_rank, local_rank, variable, size)?;
            if size > world_size {
                return Err(Error::Contradiction(format!("{variable}={size} is more than {}={world_size}", family.size)));
            }
        }
        let agent_store = flag(&get, "TORCHELASTIC_USE_AGENT_STORE")?;
        let restart = number(&get, "TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0) as u64;
        let master = if world_size > 1 && meet { Some(family.master(&get, world_size)?) } else { None };
        Ok(Environment { rank, world_size, local_rank, local_world_size: local_size, master, agent_store, restart })
    }

    /// The device of this process by the name that a user gave. With several processes, `cuda` and `auto` are the GPU of this one's place
    /// on its machine, and become the calling thread's ([`softclip_torch::select_device`]); where each process sees one GPU alone, it is
    /// that. Any other name says itself what it is.
    ///
    /// # Errors
    /// As [`softclip_torch::parse_device`]; or the machine has more processes than GPUs.
    pub fn device(&self, name: &str) -> Result<Device> {
        let first = parse_device(name)?;
        let gpus = if first == Device::Cpu { 0 } else { usize::try_from(cuda_devices()).unwrap_or(0) };
        let device = self.own(name, first, gpus)?;
        select_device(device)?;
        Ok(device)
    }

    fn own(&self, name: &str, first: Device, gpus: usize) -> Result<Device> {
        if self.world_size == 1 || gpus < 2 || first != Device::Cuda(0) || name.contains(':') {
            return Ok(first);
        }
        if self.local_rank < gpus {
            return Ok(Device::Cuda(self.local_rank));
        }
        let why = format!(
            "this is process {} of this machine, which has {gpus} GPUs: start as many processes at most, or use --device cpu",
            self.local_rank + 1
        );
        Err(Error::Contradiction(why))
    }

    /// Whether all ranks meet on this very machine, as far as the address tells.
    pub fn is_loopback(&self) -> bool {
        self.master.as_ref().is_some_and(|m| m.address == "localhost" || m.address == "::1" || m.address.starts_with("127."))
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.world_size)
    }
}

impl Family {
    fn below(&self, a: &str, rank: usize, b: &str, size: usize) -> Result<()> {
        if rank < size {
            return Ok(());
        }
        Err(Error::Contradiction(format!("{a}={rank} is not below {b}={size}: ranks count from 0")))
    }

    fn master(&self, get: &impl Fn(&str) -> Option<String>, size: usize) -> Result<Master> {
        let missing = |variable| {
            let what = match self.name {
                "Slurm" => {
                    "in the batch script, before srun: export MASTER_PORT=29500 \
                    MASTER_ADDR=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n1). To run one process by itself: srun -n1"
                }
                "torchrun" => "set it to rank 0's machine and a free port of it, or start with torchrun or `softclip launch`",
                _ => "export it before mpirun, for all ranks: rank 0's machine and a free port of it",
            };
            Error::Missing { variable, because: format!("and {size} ranks have to meet: {what}") }
        };
        let address = get("MASTER_ADDR").filter(|a| !a.is_empty()).ok_or_else(|| missing("MASTER_ADDR"))?;
        let port = get("MASTER_PORT").ok_or_else(|| missing("MASTER_PORT"))?;
        match port.parse() {
            Ok(port) if port > 0 => Ok(Master { address, port }),
            _ => Err(Error::Malformed { variable: "MASTER_PORT", value: port, expected: "a port from 1 to 65535" }),
        }
    }
}

fn number(get: &impl Fn(&str) -> Option<String>, variable: &'static str) -> Result<Option<usize>> {
    let Some(value) = get(variable) else { return Ok(None) };
    match value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Error::Malformed { variable, value, expected: "a number from 0 on" }),
    }
}

fn flag(get: &impl Fn(&str) -> Option<String>, variable: &'static str) -> Result<bool> {
    match get(variable).as_deref() {
        None | Some("" | "0" | "False" | "false") => Ok(false),
        Some("1" | "True" | "true") => Ok(true),
        Some(other) => Err(Error::Malformed { variable, value: other.to_owned(), expected: "True or False" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &str) -> Result<Environment> {
        let pairs: Vec<_> = variables.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
        Environment::from_variables(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_launcher_is_understood() {
        let meet = "MASTER_ADDR=node7 MASTER_PORT=29500";
        for (variables, expected) in [
            ("RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2", (3, 4, 1, Some(2))),
            ("RANK=3 WORLD_SIZE=4", (3, 4, 0, None)),
            ("RANK=3 WORLD_SIZE=4 LOCAL_RANK=1", (3, 4, 1, None)),
            ("SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_STEP_NODELIST=node[7-10]", (5, 8, 1, None)),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2",
                (1, 2, 1, Some(2)),
            ),
            ("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=1", (1, 2, 0, Some(1))),
            // torchrun under srun -n1 on each node, and mpirun inside of a batch script: the inner one counts.
            ("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0", (1, 2, 1, None)),
            ("OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 SLURM_PROCID=0 SLURM_NTASKS=2", (1, 2, 0, None)),
        ] {
            let e = read(&format!("{variables} {meet}")).unwrap();
            assert_eq!((e.rank, e.world_size, e.local_rank, e.local_world_size), expected, "{variables}");
            assert_eq!(e.master, Some(Master { address: "node7".into(), port: 29500 }), "{variables}");
            assert!(!e.agent_store && e.restart == 0 && !e.is_loopback());
        }
    }

    #[test]
    fn each_process_of_a_machine_has_its_gpu() {
        let place = |local_rank, world_size| Environment { local_rank, world_size, ..Environment::alone() };
        for (local, world, name, first, gpus, expected) in [
            (1, 4, "cuda", Device::Cuda(0), 4, Device::Cuda(1)),
            (3, 4, "auto", Device::Cuda(0), 8, Device::Cuda(3)),
            // Of two machines' processes, those of one.
            (0, 2, "cuda", Device::Cuda(0), 4, Device::Cuda(0)),
            // Each process sees its own alone.
            (3, 4, "cuda", Device::Cuda(0), 1, Device::Cuda(0)),
            (1, 1, "cuda", Device::Cuda(0), 4, Device::Cuda(0)),
            (1, 4, "cuda:0", Device::Cuda(0), 4, Device::Cuda(0)),
            (1, 4, "cuda:2", Device::Cuda(2), 4, Device::Cuda(2)),
            (1, 4, "cpu", Device::Cpu, 4, Device::Cpu),
        ] {
            assert_eq!(place(local, world).own(name, first, gpus).unwrap(), expected, "{local} {world} {name} {gpus}");
        }
        let text = place(2, 3).own("cuda", Device::Cuda(0), 2).unwrap_err().to_string();
        assert!(text.contains("process 3 of this machine, which has 2 GPUs"), "{text}");
        assert_eq!(place(1, 2).device("cpu").unwrap(), Device::Cpu);
    }

    #[test]
    fn one_process_needs_nothing() {
        for variables in ["", "MASTER_ADDR=x", "SLURM_NTASKS=4", "LOCAL_RANK=0"] {
            assert_eq!(read(variables).unwrap(), Environment::alone(), "{variables}");
        }
        for variables in ["RANK=0 WORLD_SIZE=1", "SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0"] {
            let e = read(variables).unwrap();
            assert_eq!((e.rank, e.world_size, &e.master), (0, 1, &None), "{variables}");
        }
    }

    #[test]
    fn the_agents_store_and_restarts_are_read() {
        let base = "RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=4711";
        let e = read(&format!("{base} TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RESTART_COUNT=3")).unwrap();
        assert!(e.agent_store && e.restart == 3 && e.is_loopback());
        assert!(!read(&format!("{base} TORCHELASTIC_USE_AGENT_STORE=False")).unwrap().agent_store);
    }

    #[test]
    fn what_is_missing_wrong_or_contradictory_is_named() {
        let meet = "MASTER_ADDR=node7 MASTER_PORT=29500";
        for (variables, expected) in [
            ("RANK=0", &["WORLD_SIZE is not set", "RANK"][..]),
            ("WORLD_SIZE=2", &["RANK is not set", "WORLD_SIZE"]),
            ("RANK=0 WORLD_SIZE=2", &["MASTER_ADDR is not set", "2 ranks"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=x", &["MASTER_PORT is not set"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=http", &["MASTER_PORT=http", "65535"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=0", &["MASTER_PORT=0", "65535"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=65536", &["MASTER_PORT=65536"]),
            ("RANK=two WORLD_SIZE=2", &["RANK=two", "number"]),
            ("RANK=-1 WORLD_SIZE=2", &["RANK=-1"]),
            ("SLURM_PROCID=0 SLURM_LOCALID=0", &["SLURM_NTASKS is not set", "Slurm"]),
            ("SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_LOCALID=0", &["MASTER_ADDR is not set", "scontrol show hostnames", "srun"]),
            ("PMI_RANK=0", &["PMI_SIZE is not set"]),
            ("OMPI_COMM_WORLD_RANK=0", &["OMPI_COMM_WORLD_SIZE is not set"]),
        ] {
            let text = read(variables).unwrap_err().to_string();
            assert!(expected.iter().all(|e| text.contains(e)), "{variables}: {text}");
        }
        for (variables, expected) in [
            ("RANK=2 WORLD_SIZE=2", "RANK=2 is not below WORLD_SIZE=2"),
            ("RANK=0 WORLD_SIZE=0", "RANK=0 is not below WORLD_SIZE=0"),
            ("RANK=1 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=2 is not below LOCAL_WORLD_SIZE=2"),
            ("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4", "LOCAL_WORLD_SIZE=4 is more than WORLD_SIZE=2"),
            ("RANK=1 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK is not set"),
            ("RANK=1 WORLD_SIZE=2 TORCHELASTIC_USE_AGENT_STORE=maybe", "TORCHELASTIC_USE_AGENT_STORE=maybe"),
            ("RANK=1 WORLD_SIZE=2 TORCHELASTIC_RESTART_COUNT=x", "TORCHELASTIC_RESTART_COUNT=x"),
        ] {
            let text = read(&format!("{variables} {meet}")).unwrap_err().to_string();
            assert!(text.contains(expected), "{variables}: {text}");
        }
    }
}
