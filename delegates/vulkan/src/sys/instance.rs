//! The loader and an instance.

use super::{error, lock};
use ash::{Entry, vk};
use delegraph_sdk::environment::{is_set, variable};
use delegraph_sdk::{Error, Status};
use std::ffi::{CStr, CString, c_void};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const VALIDATION: &CStr = c"VK_LAYER_KHRONOS_validation";
/// How many messages are kept.
const MOST_TEXTS: usize = 16;

/// What the validation layers said.
#[derive(Default)]
pub struct Messages {
    count: AtomicU32,
    /// How many there were when somebody was told.
    told: AtomicU32,
    texts: Mutex<Vec<String>>,
}

impl Messages {
    /// How many there were.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first of them.
    pub fn texts(&self) -> Vec<String> {
        lock(&self.texts).clone()
    }

    /// Fails if there was any.
    ///
    /// # Errors
    /// `INTERNAL` with the first.
    pub fn check(&self) -> Result<(), Error> {
        match self.count() {
            0 => Ok(()),
            count => {
                self.told.store(count, Ordering::Relaxed);
                let texts = self.texts();
                let first = texts.first().map_or("", String::as_str);
                Err(Error::internal(format!(
                    "the validation layers said {count} things, first: {first}"
                )))
            }
        }
    }
}

/// An instance of Vulkan: the loader, opened at run time.
pub struct Instance {
    pub(super) raw: ash::Instance,
    pub(super) entry: Entry,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    messages: Arc<Messages>,
    /// For tests: how many more submissions until one loses the device.
    lose: AtomicI64,
    /// For tests: devices are taken for such with memory of their own, so that all goes through staging buffers.
    pub(super) staged: bool,
    /// For tests: weights are copied as on a device with a queue for that.
    pub(super) copies_beside: bool,
}

impl Instance {
    /// Opens the loader and makes an instance, with validation layers if they are asked for.
    ///
    /// # Errors
    /// `DEPENDENCY_MISSING`: there is no loader, none of Vulkan 1.1, or no validation layer.
    pub fn open(loader: Option<&str>, validation: bool) -> Result<Arc<Instance>, Error> {
        let missing = |text: String| Error::new(Status::DEPENDENCY_MISSING, text);
        // SAFETY: the library is the system's Vulkan loader, or the one that the user names; loading it runs its initializers.
        let entry = unsafe {
            match loader {
                Some(path) => Entry::load_from(path),
                None => Entry::load(),
            }
        };
        let entry = entry.map_err(|e| {
            missing(format!("there is no Vulkan loader: {e}")).hint("install `libvulkan1` and a driver")
        })?;
        // SAFETY: the entry is loaded; so below.
        let version = unsafe { entry.try_enumerate_instance_version() }.map_err(|r| error("tell its version", r))?;
        let version = version.unwrap_or(vk::API_VERSION_1_0);
        if version < vk::API_VERSION_1_1 {
            return Err(missing(
                "the Vulkan loader is of version 1.0; 1.1 is needed".to_string(),
            ));
        }
        // For tests: the number of the submission that loses the device.
        let lose = variable("DELEGRAPH_VULKAN_LOSE").and_then(|n| n.into_string().ok());
        let lose = lose.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut layers = Vec::new();
        let mut extensions = Vec::new();
        if validation {
            // SAFETY: as above.
            let known =
                unsafe { entry.enumerate_instance_layer_properties() }.map_err(|r| error("list its layers", r))?;
            if !known.iter().any(|layer| layer.layer_name_as_c_str() == Ok(VALIDATION)) {
                return Err(missing("the Vulkan validation layers are not installed".to_string())
                    .hint("install `vulkan-validationlayers`"));
            }
            layers.push(VALIDATION.as_ptr());
            extensions.push(ash::ext::debug_utils::NAME.as_ptr());
            // SAFETY: as above.
            let of_layer = unsafe { entry.enumerate_instance_extension_properties(Some(VALIDATION)) };
            let name = ash::ext::validation_features::NAME;
            let has = |e: &vk::ExtensionProperties| e.extension_name_as_c_str() == Ok(name);
            if of_layer.unwrap_or_default().iter().any(has) {
                extensions.push(name.as_ptr());
            }
        }
        let name = CString::default();
        let application = vk::ApplicationInfo::default()
            .application_name(&name)
            .engine_name(c"delegraph")
            .api_version(vk::API_VERSION_1_3.min(version));
        let messages = Arc::new(Messages::default());
        let mut messenger_info = messenger_info(&messages);
        let enabled = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&enabled);
        let mut info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_layer_names(&layers)
            .enabled_extension_names(&extensions);
        if validation {
            info = info.push_next(&mut features).push_next(&mut messenger_info);
        }
        // SAFETY: everything that the info points to is alive.
        let raw = unsafe { entry.create_instance(&info, None) }.map_err(|r| match r {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => {
                missing("the Vulkan loader finds no driver".to_string()).hint("install a driver of Vulkan 1.2")
            }
            r => error("make an instance", r),
        })?;
        let mut instance = Instance {
            raw,
            entry,
            messenger: None,
            messages,
            lose: AtomicI64::new(lose),
            staged: is_set("DELEGRAPH_VULKAN_STAGING") || is_set("DELEGRAPH_VULKAN_COPIES"),
            copies_beside: is_set("DELEGRAPH_VULKAN_COPIES"),
        };
        if validation {
            // The one above is for making and ending the instance only.
            let functions = ash::ext::debug_utils::Instance::new(&instance.entry, &instance.raw);
            let info = self::messenger_info(&instance.messages);
            // SAFETY: the extension is enabled; `messages` outlives the messenger, which is destroyed in `drop`.
            let made = unsafe { functions.create_debug_utils_messenger(&info, None) };
            instance.messenger = Some((functions, made.map_err(|r| error("make a messenger", r))?));
        }
        Ok(Arc::new(instance))
    }

    /// True if this submission is the one that is to lose the device.
    pub(super) fn loses_device(&self) -> bool {
        self.lose.load(Ordering::Relaxed) > 0 && self.lose.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// What the validation layers said so far; nothing without them.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }
}

fn messenger_info(messages: &Arc<Messages>) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(vk::DebugUtilsMessageSeverityFlagsEXT::ERROR | vk::DebugUtilsMessageSeverityFlagsEXT::WARNING)
        .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION | vk::DebugUtilsMessageTypeFlagsEXT::PERFORMANCE)
        .pfn_user_callback(Some(on_message))
        .user_data(Arc::as_ptr(messages).cast_mut().cast())
}

/// SAFETY: only the layers call it, with the pointers that `messenger_info` and the specification of the extension promise.
unsafe extern "system" fn on_message(
    _severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _kind: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: the layer gives a valid struct with a string that ends in 0, and `user` is the `Messages` that outlive the messenger.
    let (text, messages) = unsafe {
        let text = match (*data).p_message.is_null() {
            true => String::new(),
            false => CStr::from_ptr((*data).p_message).to_string_lossy().into_owned(),
        };
        (text, &*user.cast_const().cast::<Messages>())
    };
    messages.count.fetch_add(1, Ordering::Relaxed);
    let mut texts = lock(&messages.texts);
    if texts.len() < MOST_TEXTS {
        texts.push(text);
    }
    vk::FALSE
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: devices keep this alive, so none is left; the messenger goes before the instance.
        unsafe {
            if let Some((functions, messenger)) = &self.messenger {
                functions.destroy_debug_utils_messenger(*messenger, None);
            }
            self.raw.destroy_instance(None);
        }
        // Nobody asks any more; what was told before was an error already.
        let texts = self.messages.texts();
        if self.messages.count() > self.messages.told.load(Ordering::Relaxed) {
            eprintln!("delegraph-vulkan: the validation layers said: {}", texts.join("\n"));
        }
    }
}
