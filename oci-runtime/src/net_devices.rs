//! `linux.netDevices`: moved into the container's network namespace by its creator, and back should it not come to be.
//!
//! The kernel keeps a device's MTU and hardware address on the way and drops its addresses and the routes over it. Those of
//! its addresses that are global and were set by somebody are set again.

use std::os::fd::{AsFd, OwnedFd};

use sys::namespace::{Kind, current, with_ns};
use sys::netlink::route::{Link, NewAddress, Request, RouteSocket};

use crate::error::{Error, Step};
use crate::plan::NetDevice;

/// The devices that have been moved.
pub(crate) struct Moved {
    /// The container's network namespace; held, so that it lives until they are back.
    namespace: OwnedFd,
    /// Our own.
    home: OwnedFd,
    devices: Vec<Device>,
}

/// One of them.
struct Device {
    plan: NetDevice,
    /// Whether it was up on the host.
    was_up: bool,
    /// By the index on the host.
    addresses: Vec<NewAddress>,
}

/// Moves them all and sets them up. After a failure they are back.
pub(crate) fn move_all(plan: &[NetDevice], namespace: OwnedFd) -> Result<Moved, Error> {
    let home = current(Kind::Net).step(|| "open the own network namespace".to_owned())?;
    let (mut here, mut there) = sockets(&namespace)?;
    let found = plan.iter().map(|device| find(device, &mut here, &mut there)).collect::<Result<Vec<_>, _>>()?;
    let mut moved = Moved { namespace, home, devices: Vec::new() };
    for (device, link) in found {
        let name = device.plan.name_inside.clone();
        let step = format!("move linux.netDevices[{}]", device.plan.name);
        let request = Request::MoveLink { link, namespace: moved.namespace.as_fd(), name: &name };
        let taken = here.run(&[request]);
        moved.devices.push(device);
        let taken = taken.and_then(|()| settle(&mut there, &name, &moved.last().addresses, true));
        if let Err(source) = taken {
            moved.undo();
            return Err(Error::Step { step, source });
        }
    }
    Ok(moved)
}

impl Moved {
    fn last(&self) -> &Device {
        self.devices.last().expect("one was pushed just now")
    }

    /// Brings them back. Best effort: what led here is what is to be told.
    pub(crate) fn undo(&self) {
        let Ok((mut here, mut there)) = sockets(&self.namespace) else { return };
        for device in self.devices.iter().rev() {
            let Ok(Some(link)) = there.link(&device.plan.name_inside) else { continue };
            let name = &device.plan.name;
            let request = Request::MoveLink { link: link.index, namespace: self.home.as_fd(), name };
            let _ = there.run(&[request]).and_then(|()| settle(&mut here, name, &device.addresses, device.was_up));
        }
    }
}

/// One socket in our own namespace, one in the container's.
fn sockets(namespace: &OwnedFd) -> Result<(RouteSocket, RouteSocket), Error> {
    let step = || "open a netlink socket in the container's network namespace".to_owned();
    let there = with_ns(namespace.as_fd(), Kind::Net, RouteSocket::open).and_then(|socket| socket).step(step)?;
    let here = RouteSocket::open().step(|| "open a netlink socket".to_owned())?;
    Ok((here, there))
}

/// The device as it is on the host, and its index there.
fn find(plan: &NetDevice, here: &mut RouteSocket, there: &mut RouteSocket) -> Result<(Device, u32), Error> {
    let field = || format!("linux.netDevices[{}]", plan.name);
    let link = here.link(&plan.name).step(field)?;
    let link = link.ok_or_else(|| Error::Refused(format!("{}: there is no such network device", field())))?;
    if there.link(&plan.name_inside).step(field)?.is_some() {
        let name = &plan.name_inside;
        return Err(Error::Refused(format!("{}: the container has a network device {name} already", field())));
    }
    let addresses = here.addresses(link.index).step(field)?.into_iter().filter(|address| address.is_static);
    let addresses =
        addresses.map(|address| NewAddress { link: link.index, address: address.address, prefix: address.prefix });
    Ok((Device { plan: plan.clone(), was_up: link.up, addresses: addresses.collect() }, link.index))
}

/// Gives a device that has arrived its addresses. Its index may be another one here.
fn settle(socket: &mut RouteSocket, name: &str, addresses: &[NewAddress], up: bool) -> sys::Result<()> {
    let Some(Link { index, .. }) = socket.link(name)? else {
        return Err(sys::Error::new("netlink", sys::Errno::ENODEV, format_args!("find link {name}")));
    };
    let mut requests: Vec<Request<'_>> =
        addresses.iter().map(|address| Request::AddAddress(NewAddress { link: index, ..*address })).collect();
    requests.push(Request::SetUp { link: index, up });
    socket.run(&requests)
}
